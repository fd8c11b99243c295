"""Which versions of cgroups the host has mounted."""


def second_hierarchies():
    """Where version 2 is mounted beside version 1. crun refuses such a mix, so it is hidden from
    it, in a mount namespace of its own."""
    with open("/proc/self/mounts", encoding="utf-8") as lines:
        mounts = [line.split()[1:3] for line in lines]
    if not any(kind == "cgroup" for _, kind in mounts):
        return []
    return [point for point, kind in mounts if kind == "cgroup2"]
