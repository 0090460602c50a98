"""A wide workflow is one of Nipype's in everything but the time that it takes."""

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.workflows.wide import WideWorkflow


def identity(name):
    return pe.Node(niu.IdentityInterface(['value']), name=name)


def nested(name):
    inner = pe.Workflow(name='inner')
    inner.connect(identity('begin'), 'value', identity('end'), 'value')
    workflow = pe.Workflow(name=name)
    workflow.connect(identity('inputnode'), 'value', inner, 'begin.value')
    workflow.connect(inner, 'end.value', identity('outputnode'), 'value')
    return workflow


def build(kind, count=4):
    workflow, source, sink = kind(name='all'), identity('source'), None
    sink = pe.Node(niu.IdentityInterface([f'of_{n}' for n in range(count)]), name='sink')
    for number in range(count):
        part = nested(f'part_{number}')
        workflow.connect(source, 'value', part, 'inputnode.value')
        workflow.connect(part, 'outputnode.value', sink, f'of_{number}')
    return workflow


def described(graph):
    nodes = sorted(node.fullname for node in graph)
    edges = sorted((a.fullname, b.fullname, d['connect']) for a, b, d in graph.edges(data=True))
    return nodes, edges


def test_it_is_flattened_to_the_same_graph():
    wide, usual = (build(kind)._create_flat_graph() for kind in (WideWorkflow, pe.Workflow))
    assert described(wide) == described(usual)
    assert len(wide) == 2 + 4 * 4


def test_it_holds_what_its_parts_hold():
    workflow, part = WideWorkflow(name='all'), nested('part')
    end = part.get_node('inner.end')
    assert not workflow._has_node(end)
    workflow.add_nodes([part])
    assert workflow._has_node(part)
    assert workflow._has_node(end)
    other = nested('other')
    assert not workflow._has_node(other.get_node('inputnode'))
    workflow.add_nodes([other])
    assert workflow._has_node(other.get_node('inputnode'))
    workflow.remove_nodes([part])
    assert not workflow._has_node(end)


def test_a_name_is_taken_once():
    workflow = WideWorkflow(name='all')
    workflow.add_nodes([nested('part')])
    with pytest.raises(OSError, match='part'):
        workflow.add_nodes([nested('part')])
