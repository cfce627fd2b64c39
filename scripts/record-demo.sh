#!/usr/bin/env bash
# Runs the demo and turns what it showed into docs/demo.svg. Needs the rack `demo` to be down.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${RACKHAND_VENV:-/var/cache/rackhand/venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet rich==14.2.0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
scripts/demo.sh "${1:-target/release/rackhand}" 2>&1 | tee "$log"
"$venv/bin/python" - "$log" docs/demo.svg <<'PY'
import re, sys
from rich.console import Console
from rich.text import Text

text = open(sys.argv[1], encoding="utf-8", errors="replace").read().strip()


def shorten(plan):
    """The plan of three bare hosts is long; the picture says how long."""
    lines = plan.group(2).count("\n")
    return f"{plan.group(1)}  ... the plan, host by host, with diffs: {lines} lines ...\n"


text = re.sub(r"(\$ rackhand provision --yes[^\n]*\n)(.*?\n)(?=ok )", shorten, text, count=1, flags=re.S)
console = Console(record=True, width=118, file=open("/dev/null", "w"), force_terminal=True, color_system="truecolor")
console.print(Text.from_ansi(text))
svg = console.export_svg(title="make demo")
# A picture in a README fetches nothing: the fonts of the reader's machine do.
svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.S)
open(sys.argv[2], "w", encoding="utf-8").write(svg)
PY
echo "docs/demo.svg written"
