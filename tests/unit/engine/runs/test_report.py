"""Reading what the engine says it did, and comparing it with the plan."""

from __future__ import annotations

from dataclasses import replace

from planning_makers import a_plan

from meshnode.engine.runs.checking import engine_names, memory_rows, placed_on, wrong_layers
from meshnode.engine.runs.report import BufferKind, LoadReport, holder_of
from meshnode.engine.serving.process import EngineDevice
from planner.model import LayerSpec, ModelSpec

MIB = 2**20
NEAR, FAR = "127.0.0.1:50052", "127.0.0.1:50053"
LOG = f"""\
load_tensors: layer   0 assigned to device RPC0, is_swa = 1
load_tensors: layer   1 assigned to device RPC0, is_swa = 0
load_tensors: layer   2 assigned to device RPC1, is_swa = 1
load_tensors: layer   3 assigned to device RPC1, is_swa = 0
load_tensors: layer   4 assigned to device RPC1, is_swa = 0
load_tensors:   CPU_Mapped model buffer size =   170.00 MiB
load_tensors: RPC0[{NEAR}] model buffer size =    25.15 MiB
load_tensors: RPC0[{FAR}] model buffer size =   210.01 MiB
llama_context:        CPU  output buffer size =     1.00 MiB
llama_kv_cache: RPC0[{NEAR}] KV buffer size =     2.00 MiB
llama_kv_cache: RPC0[{NEAR}] KV buffer size =    12.00 MiB
llama_kv_cache: RPC0[{FAR}] KV buffer size =     4.00 MiB
llama_memory_recurrent: RPC0[{FAR}] RS buffer size =    18.00 MiB
sched_reserve: RPC0[{NEAR}] compute buffer size =    99.00 MiB
sched_reserve: RPC0[{NEAR}] compute buffer size =    67.54 MiB
sched_reserve: RPC0[{FAR}] compute buffer size =   558.30 MiB
sched_reserve:        CPU compute buffer size =    46.30 MiB
sched_reserve:  CUDA_Host compute buffer size =     4.00 MiB
something else entirely: model buffer size = soon
"""
MODEL = ModelSpec("tiny", (LayerSpec(4, weight_bytes=MIB),), embedding_bytes=170 * MIB, hidden_size=640)
ARRIVING = 4 * 4 * 640 * 512
"""Two activations for each token of a micro-batch, as a later stage gets them from another device in copies."""
TWO_SERVERS = (EngineDevice(2, endpoint=NEAR), EngineDevice(3, endpoint=FAR))


def a_report(log: str = LOG) -> LoadReport:
    report = LoadReport()
    for line in log.splitlines():
        report.read_line(line)
    return report


def test_layers_and_buffers_are_read_by_device() -> None:
    report = a_report()
    assert report.layers == {0: "RPC0", 1: "RPC0", 2: "RPC1", 3: "RPC1", 4: "RPC1"}
    near, far = f"RPC0[{NEAR}]", f"RPC0[{FAR}]"
    assert report.bytes_of(near, BufferKind.WEIGHTS) == round(25.15 * MIB)
    assert report.bytes_of(near, BufferKind.KV) == 14 * MIB
    assert report.bytes_of(far, BufferKind.KV, BufferKind.STATE) == 22 * MIB
    assert report.bytes_of("CPU", BufferKind.WEIGHTS) == 170 * MIB


def test_compute_buffers_count_as_they_are_in_the_end_and_pinned_memory_is_the_hosts() -> None:
    report = a_report()
    assert report.bytes_of(f"RPC0[{NEAR}]", BufferKind.COMPUTE) == round(67.54 * MIB)
    assert report.bytes_of("CPU", BufferKind.COMPUTE) == round(46.30 * MIB) + 4 * MIB
    assert [holder_of(name) for name in ("CPU_Mapped", "CPU_REPACK", "CUDA_Host", "CUDA0", "Metal_Mapped")] == [
        "CPU", "CPU", "CPU", "CUDA0", "Metal",
    ]  # fmt: skip


def test_remote_devices_are_counted_over_all_servers() -> None:
    devices = [
        EngineDevice(1, endpoint=FAR, index=0),
        EngineDevice(1, name="CUDA0"),
        EngineDevice(1, endpoint=NEAR, index=0),
        EngineDevice(1, endpoint=FAR, index=1),
    ]
    assert engine_names(devices) == ("RPC0", "CUDA0", "RPC2", "RPC1")


def test_layers_where_the_plan_has_them_are_no_finding() -> None:
    assert wrong_layers(a_report(), placed_on(a_plan((2, 2)), TWO_SERVERS)) is None


def test_layer_elsewhere_is_told_with_both_placements() -> None:
    moved = LOG.replace("layer   2 assigned to device RPC1", "layer   2 assigned to device RPC0")
    found = wrong_layers(a_report(moved), placed_on(a_plan((2, 2)), TWO_SERVERS))
    assert found == "the engine placed RPC0:[0,3) RPC1:[3,5), the plan says RPC0:[0,2) RPC1:[2,5)"


def test_log_that_tells_no_layers_is_no_finding() -> None:
    assert wrong_layers(LoadReport(), placed_on(a_plan((2, 2)), TWO_SERVERS)) is None


def test_memory_is_set_beside_the_prediction_stage_by_stage() -> None:
    plan = a_plan((2, 2), host_bytes=180 * MIB)
    near, far, host = memory_rows(a_report(), placed_on(plan, TWO_SERVERS), plan, MODEL)
    assert (near.node, far.node, host.device) == ("node0", "node1", "host_memory")
    assert (near.weights, near.predicted_weights) == (round(25.15 * MIB), plan.stages[0].bytes.weights)
    assert far.cache == 22 * MIB
    assert (host.weights, host.predicted_weights, host.predicted_compute) == (170 * MIB, 170 * MIB, 10 * MIB)


def test_own_cpu_carries_the_hosts_part_too() -> None:
    plan = a_plan((2, 2), host_bytes=180 * MIB)
    devices = (EngineDevice(2, name="CPU"), EngineDevice(3, endpoint=FAR))
    rows = memory_rows(a_report(), placed_on(plan, devices), plan, MODEL)
    assert len(rows) == 2
    assert rows[0].predicted_weights == plan.stages[0].bytes.weights + 170 * MIB
    assert rows[1].predicted_weights == plan.stages[1].bytes.weights + plan.stages[1].bytes.endpoint
    assert rows[0].predicted_compute == plan.stages[0].bytes.compute - ARRIVING
    assert [row.mapped for row in rows] == [True, False]


def test_last_stage_on_the_own_cpu_has_a_tied_head_once_and_what_arrives_beside() -> None:
    plan = a_plan((2, 2), host_bytes=180 * MIB)
    devices = (EngineDevice(2, endpoint=NEAR), EngineDevice(3, name="CPU"))
    stage = plan.stages[1].bytes
    for model, copies in ((MODEL, 1), (replace(MODEL, tied_embedding=True), 0)):
        row = memory_rows(a_report(), placed_on(plan, devices), plan, model)[1]
        assert row.predicted_weights == stage.weights + stage.endpoint + copies * 170 * MIB
        assert row.predicted_compute == stage.compute + ARRIVING
        first = memory_rows(a_report(), placed_on(plan, devices), plan, model)[0]
        assert first.predicted_compute == plan.stages[0].bytes.compute
