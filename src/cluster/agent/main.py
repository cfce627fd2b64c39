

# --- requests and answers ---------------------------------------------------------------------------------------

# Which threads answer what: a request that hangs, or takes long, must not keep those of another kind waiting.
LANES = {
    "local": ("asok", "mon_views"),
    "mon": ("ready", "command", "latest_map", "osds_behind"),
    "state": ("get", "create", "replace", "remove", "list", "omap_get", "omap_update"),
    "look": ("rbd_list", "rbd_info", "rbd_children", "rbd_users"),
    "image": ("rbd_create", "rbd_clone", "rbd_grow", "rbd_write", "rbd_read", "rbd_snap_create",
              "rbd_snap_create_all", "rbd_snap_remove", "rbd_remove", "rbd_meta_set", "rbd_break_lock"),
}
LANE_OF = {op: lane for lane, ops in LANES.items() for op in ops}


class Agent(Images):
    def mon_views(self):
        return mon_views()


def error_of(error):
    number = number_of(error)
    message = str(error) or type(error).__name__
    if isinstance(error, Refused):
        kind = error.kind
    elif isinstance(error, TimeoutError) or number == errno.ETIMEDOUT or type(error).__name__ in ("TimedOut", "Timeout"):
        kind = "timeout"
    elif number == errno.ENOENT:
        kind = "not-found"
    elif number == errno.ESHUTDOWN:  # this host is on the blocklist
        kind = "blocklisted"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        kind = "full"
    else:
        kind = "failed"
    reply = {"kind": kind, "errno": number, "message": message}
    if kind in ("timeout", "no-quorum"):
        reply["mons"] = mon_views()
    return reply


def answer(agent, request):
    number = request.get("id")
    try:
        THREAD.until = request["until"]
        THREAD.began = False
        in_time()
        THREAD.began = False
        value = getattr(agent, request["op"])(**request.get("args", {}))
        if hasattr(value, "__next__"):
            for part in value:
                say({"id": number, "part": part})
            value = []
        reply = {"id": number, "ok": value}
    except Exception as error:  # every failure is an answer
        reply = {"id": number, "error": error_of(error)}
    say(reply)


def main():
    lines = sys.stdin.buffer
    config = json.loads(lines.readline())
    agent = Agent(config)
    lanes = {name: ThreadPoolExecutor(config["lanes"][name]) for name in LANES}
    for line in lines:
        request = json.loads(line)
        lane = LANE_OF.get(request["op"])
        if lane is None:
            error = {"kind": "failed", "errno": 0, "message": "no such request: %s" % request["op"]}
            say({"id": request["id"], "error": error})
        else:
            lanes[lane].submit(answer, agent, request)
    # The caller is gone: what has not begun is dropped, what runs is finished.
    CLOSED.set()
    for lane in lanes.values():
        lane.shutdown(cancel_futures=True)


try:
    main()
except ValueError:
    pass
os._exit(0)  # a call that hangs must not keep this process
