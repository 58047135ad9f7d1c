from __future__ import annotations

from typing import Any

from meshnode.resources import FindingCode, OfferSettings, SystemProbe, survey_machine
from meshnode.resources.cgroup import read_memory_limits
from meshnode.resources.ram import read_ram

GB = 10**9
UNLIMITED_V1 = "9223372036854771712"


def test_machine_without_cgroups_has_no_limit(machine: Any) -> None:
    assert read_memory_limits(machine.probe()).levels == ()


def test_v2_limit_of_own_namespace_binds(machine: Any) -> None:
    machine.cgroup_v2(limits={"": {"memory.max": str(8 * GB), "memory.current": str(2 * GB)}})
    pool = read_ram(machine.probe(total=256 * GB, available=200 * GB))
    assert (pool.total_bytes, pool.available_bytes) == (8 * GB, 6 * GB)


def test_v2_max_is_no_limit(machine: Any) -> None:
    machine.cgroup_v2("/app", limits={"/app": {"memory.max": "max", "memory.current": "5"}})
    assert read_memory_limits(machine.probe()).levels == ()


def test_v2_parent_limit_binds_with_siblings_use(machine: Any) -> None:
    machine.cgroup_v2(
        "/user.slice/app",
        limits={
            "/user.slice": {"memory.max": str(16 * GB), "memory.current": str(13 * GB)},
            "/user.slice/app": {"memory.max": str(12 * GB), "memory.current": str(1 * GB)},
        },
    )
    limits = read_memory_limits(machine.probe())
    assert limits.tightest is not None
    assert (limits.tightest.path, limits.tightest.room_bytes) == ("/sys/fs/cgroup/user.slice", 3 * GB)


def test_v2_memory_high_is_a_limit_too(machine: Any) -> None:
    machine.cgroup_v2(limits={"": {"memory.max": "max", "memory.high": str(4 * GB), "memory.current": "0"}})
    assert read_memory_limits(machine.probe()).smallest_limit_bytes == 4 * GB


def test_page_cache_does_not_count_as_held(machine: Any) -> None:
    stat = f"anon 1000\nfile 0\ninactive_file {3 * GB}\nactive_file {2 * GB}\n"
    machine.cgroup_v2(limits={"": {"memory.max": str(8 * GB), "memory.current": str(6 * GB), "memory.stat": stat}})
    assert read_ram(machine.probe(total=64 * GB, available=60 * GB)).available_bytes == 7 * GB


def test_v1_limit_with_hierarchical_cache(machine: Any) -> None:
    files = {
        "memory.limit_in_bytes": str(10 * GB),
        "memory.usage_in_bytes": str(7 * GB),
        "memory.stat": f"inactive_file 5\ntotal_inactive_file {4 * GB}\ntotal_active_file {1 * GB}\n",
    }
    machine.cgroup_v1("/docker/abc", limits={"/docker/abc": files, "": {"memory.limit_in_bytes": UNLIMITED_V1}})
    assert read_ram(machine.probe()).available_bytes == 8 * GB


def test_v1_container_seeing_the_hosts_path_uses_its_mounted_subtree(machine: Any) -> None:
    machine.cgroup_v1(
        "/docker/abc",
        mount_root="/docker/abc",
        limits={"": {"memory.limit_in_bytes": str(3 * GB), "memory.usage_in_bytes": "0"}},
    )
    assert read_memory_limits(machine.probe()).smallest_limit_bytes == 3 * GB


def test_group_outside_of_the_namespace_falls_back_to_the_mount(machine: Any) -> None:
    machine.cgroup_v2("/../../other", limits={"": {"memory.max": str(2 * GB), "memory.current": "0"}})
    assert read_memory_limits(machine.probe()).smallest_limit_bytes == 2 * GB


def test_vanished_group_falls_back_to_the_mount(machine: Any) -> None:
    machine.cgroup_v2("/gone", limits={"": {"memory.max": str(2 * GB), "memory.current": "0"}})
    assert read_memory_limits(machine.probe()).smallest_limit_bytes == 2 * GB


def test_limit_above_the_machine_changes_nothing(machine: Any) -> None:
    machine.cgroup_v2(limits={"": {"memory.max": str(100 * GB), "memory.current": str(1 * GB)}})
    pool = read_ram(machine.probe(total=64 * GB, available=50 * GB))
    assert (pool.total_bytes, pool.available_bytes, pool.findings) == (64 * GB, 50 * GB, ())


def test_use_above_the_limit_leaves_no_room(machine: Any) -> None:
    machine.cgroup_v2(limits={"": {"memory.max": str(2 * GB), "memory.current": str(3 * GB)}})
    assert read_ram(machine.probe()).available_bytes == 0


def test_binding_limit_is_named_with_its_figures(machine: Any) -> None:
    machine.cgroup_v2("/app", limits={"/app": {"memory.max": str(8 * GB), "memory.current": str(2 * GB)}})
    findings = survey_machine(OfferSettings(), machine.probe(total=64 * GB, available=50 * GB)).findings
    limit = next(finding for finding in findings if finding.code is FindingCode.CGROUP_LIMIT)
    assert limit.subject == "/sys/fs/cgroup/app"
    assert "limit 8.0GB, 2.0GB of it held, on a machine with 64.0GB" in limit.found


def test_own_engine_processes_count_as_available(machine: Any) -> None:
    machine.cgroup_v2(limits={"": {"memory.max": str(8 * GB), "memory.current": str(7 * GB)}})
    machine.write("/proc/77/status", f"Name:\tengine\nRssAnon:\t{5 * GB // 1024} kB\nRssFile:\t999999 kB\n")
    pool = read_ram(machine.probe(available=30 * GB), frozenset({77}))
    assert pool.available_bytes == 1 * GB + 5 * GB // 1024 * 1024


def test_mount_point_with_a_space_is_found(machine: Any) -> None:
    machine.write("/proc/self/cgroup", "0::/\n")
    machine.write("/proc/self/mountinfo", "30 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw\n")
    machine.write("/my groups/memory.max", f"{GB}\n")
    assert read_memory_limits(machine.probe()).smallest_limit_bytes == GB


def test_damaged_proc_files_mean_no_limit(machine: Any) -> None:
    machine.write("/proc/self/cgroup", "nonsense\n\n:\n0::relative/../x\n")
    machine.write("/proc/self/mountinfo", "1\n- -\n30 23 0:28 / /sys/fs/cgroup rw - cgroup2\n")
    assert read_memory_limits(machine.probe()).levels == ()


def test_this_machine_can_be_read() -> None:
    for level in read_memory_limits(SystemProbe()).levels:
        assert level.limit_bytes > 0
        assert level.held_bytes >= 0
