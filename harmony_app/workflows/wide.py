"""A Nipype workflow of thousands of workflows."""

from nipype.pipeline import engine as pe


class WideWorkflow(pe.Workflow):
    """A workflow that looks up whether it holds a node, where Nipype searches for it.

    Nipype asks all nested workflows at each connection, which for 1,000 people takes a minute and
    grows with their square. What a nested workflow holds is noted when it is added, and has to be whole
    by then.

    Parameters
    ----------
    name : str
        As of any workflow.
    base_dir : str, optional
        Scratch.
    """

    def __init__(self, name: str, base_dir: str | None = None):
        super().__init__(name, base_dir)
        self._noted: set = set()
        self._within: set = set()

    def _has_node(self, wanted_node) -> bool:
        return wanted_node in self._nodes_cache or wanted_node in self._within

    def _update_node_cache(self) -> None:
        super()._update_node_cache()
        nested = self._nested_workflows_cache
        if self._noted - nested:
            self._noted, self._within = set(), set()
        for workflow in nested - self._noted:
            self._noted.add(workflow)
            self._within |= _nodes_of(workflow)


def _nodes_of(workflow: pe.Workflow) -> set:
    """All nodes of a workflow and of those nested in it."""
    nodes = set(workflow._nodes_cache)
    for nested in workflow._nested_workflows_cache:
        nodes |= _nodes_of(nested)
    return nodes
