//! What a point carries for the day when this program is not at hand.

use crate::manifest::Manifest;

/// The name of the script in every point.
pub(crate) const SCRIPT_NAME: &str = "restore.sh";
/// The script; it is the same in every point.
pub(crate) const SCRIPT: &str = include_str!("restore.sh");

/// `RESTORE.md` of a point.
pub(crate) fn readme(manifest: &Manifest) -> String {
    let Manifest { cluster, guest, name, point, parent_point, consistency, .. } = manifest;
    let disks: String = manifest
        .disks
        .iter()
        .map(|d| format!("| {} | `{}` | {} | `{}` |\n", d.index, d.image, d.size, d.file))
        .collect();
    let parent = match parent_point {
        Some(parent) => {
            format!("This point is a difference to `../{parent}`, which is needed as well, and so on to a full.")
        }
        None => "This point is a full.".to_owned(),
    };
    format!(
        "# Restore guest {name} as of {point}

Guest {guest} of cluster {cluster}; its disks are consistent as of: {consistency:?}. {parent}

| disk | image | size in bytes | data |
|---|---|---|---|
{disks}
To bring the disks back, on any machine with `zstd`, `sha256sum` and an `rbd` that reaches a Ceph cluster:

```sh
sh restore.sh POOL                  # all disks, under the names of their images
sh restore.sh POOL --as web-1-old   # as web-1-old.disk0, web-1-old.disk1, ...
sh restore.sh POOL --disk 0         # only disk 0
```

The script checks every file that it needs before it makes an image, applies the template (where a disk has one), the full and the
differences, and removes the snapshots that this leaves on the image. It refuses an image that is there already. `RBD` may name another
program with options: `RBD='rbd --id admin' sh restore.sh POOL`. Keep the directories beside this one: it reads them.

The guest's definition is in `guest.json`. Each data file is zstd, and within it a diff stream of Ceph, version 1: by hand,
`zstd -dc disk-0.rbdiff.zst > FIFO` and `rbd import-diff FIFO POOL/IMAGE`.
"
    )
}
