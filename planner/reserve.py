"""What nodes bring to a plan, or would: layers held, time per layer, time to go there and back.

Lives here: `Reserve`. Not here: the words made of it (`planner.explaining`), its only caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from planner.compiling import TimedFamily, compile_instance
from planner.engine import Topology
from planner.instance import Instance
from planner.links import LinkMatrix
from planner.memory import MemoryNeed, memory_need
from planner.nodes import NodeSpec
from planner.plan import SplitPlan
from planner.request import UNRESTRICTED, PlanRequest
from planner.timing import DeviceTimes, timing_under


@dataclass(frozen=True, eq=False)
class Reserve:
    """Figures of every node that may hold stages, beside one plan. Unknown figures are None, never 0."""

    request: PlanRequest
    plan: SplitPlan
    need: MemoryNeed

    @classmethod
    def of(cls, request: PlanRequest, plan: SplitPlan) -> Reserve:
        """The figures of `request`'s nodes beside `plan`."""
        return cls(request, plan, memory_need(request.model, request.workload, request.engine))

    def most_layers(self, node: NodeSpec) -> int:
        """The longest window of layers that one device of the node can hold."""
        instance = self._instance
        mine = [index for index, (owner, _) in enumerate(instance.labels) if owner == node.id]
        rows = [instance.reach_row(index) for index in mine]
        return max((end - start for row in rows for start, end in enumerate(row)), default=0)

    def layer_ms(self, node: str) -> float | None:
        """Time for an average layer on the node's fastest device."""
        return self._layer_ms.get(node)

    def slowest_used_ms(self) -> float | None:
        """The same for the slowest device of the plan, None if capacity-only."""
        each = [stage.seconds * 1000 / stage.layers for stage in self.plan.stages if stage.seconds is not None]
        return max(each, default=None)

    def hop_ms(self, node: str) -> float | None:
        """Time to go to the node and back: a star's entry and exit; in a chain, from and to the plan's nearest node."""
        links, coordinator = self.request.links, self.plan.coordinator.node
        if links.free:
            return 0.0
        if self.request.engine.topology is Topology.STAR:
            return self._star_ms.get(node)
        payload = self._times.passing.activation_bytes
        used = [each for each in dict.fromkeys((*self.plan.nodes, coordinator)) if each != node]
        there = [link.one_way_ns(payload) for each in used if (link := links.get(each, node)) is not None]
        back = [link.one_way_ns(payload) for each in used if (link := links.get(node, each)) is not None]
        return (min(there) + min(back)) / 1e6 if there and back else None

    def hop_estimated(self, node: str) -> bool:
        """Whether an RTT of that way is an estimate."""
        links, coordinator = self.request.links, self.plan.coordinator.node
        is_star = self.request.engine.topology is Topology.STAR
        ends = {coordinator} if is_star else {*self.plan.nodes, coordinator}
        ways = [way for each in ends - {node} for way in ((each, node), (node, each))]
        return not links.free and any((link := links.get(*way)) is not None and link.estimated for way in ways)

    @cached_property
    def _instance(self) -> Instance:
        return compile_instance(self.request, self.request.workers, self.need)

    @cached_property
    def _times(self) -> DeviceTimes:
        """Costs of devices; hops are looked up where they are wanted, since in a large mesh there are a million."""
        free = PlanRequest(
            self.request.model,
            self.request.nodes,
            LinkMatrix.all_free(),
            self.request.workload,
            constraints=UNRESTRICTED,
            engine=self.request.engine,
        )
        return TimedFamily.of(free, self.request.workers, self.need, batch=1).times

    @cached_property
    def _layer_ms(self) -> dict[str, float]:
        layers, best = self.request.model.layer_count, dict[str, float]()
        for node, prefix in zip(self._times.node_ids, self._times.cost_prefix_ns, strict=True):
            each = prefix[-1] / layers / 1e6
            best[node] = min(each, best.get(node, each))
        return best

    @cached_property
    def _star_ms(self) -> dict[str, float]:
        timing = timing_under(self.plan.coordinator.node, self._times, self.request.engine, self.request.links)
        pairs = zip(self._times.node_ids, timing.entry_ns, timing.exit_ns, strict=True)
        return {node: (there + back) / 1e6 for node, there, back in pairs if there is not None and back is not None}
