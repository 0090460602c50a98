"""In which order nodes run: a session is ended before the next begins."""

import networkx as nx
from nipype.pipeline.engine.utils import topological_sort


def session_by_session(graph: nx.DiGraph) -> list:
    """Nodes in an order in which a session is ended before the next begins.

    Nipype goes step by step: every scan of a large dataset would be prepared, and kept on
    disk, before the first result is written. What the target needs comes first.

    Parameters
    ----------
    graph : DiGraph
        Nodes and what they depend on.
    """
    nodes, _ = topological_sort(graph)
    first = {node for node in nodes if node.name == 'encode_target'}
    first |= {before for node in first for before in nx.ancestors(graph, node)}
    ranks: dict[str, int] = {}
    keys = {}
    for index, node in enumerate(nodes):
        workflow = node.fullname.split('.')[-2].removesuffix('_wf').removesuffix('_prepare')
        keys[node] = (node not in first, ranks.setdefault(workflow, len(ranks)), index)
    return list(nx.lexicographical_topological_sort(graph, key=keys.__getitem__))


class SessionOrder:
    """For plugins of Nipype that send out several nodes at a time: they do so in this order."""

    def _generate_dependency_list(self, graph):
        super()._generate_dependency_list(graph)
        index = {node: i for i, node in enumerate(self.procs)}
        order = [index[node] for node in session_by_session(graph)]
        self.procs = [self.procs[i] for i in order]
        self.depidx = self.depidx.tocsr()[order][:, order].tolil()
        self.refidx = self.depidx.astype(int)
