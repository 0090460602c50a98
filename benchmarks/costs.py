"""What each method costs: parameters, operations, time and memory of harmonizing one scan.

Measured in a process of its own with one thread. Memory is what the call adds to a process that
holds the scans and the loaded method; what a library brings when it is first used counts too.
"""

from collections.abc import Mapping, Sequence

from benchmarks.compared import DECODERS, Compared, make_method
from benchmarks.preprocessed import Preprocessed
from benchmarks.sessions import Setup, workplace
from harmony_app.evaluation.cost import measure_cost
from harmony_app.methods.base import Harmonized, Method, Scan, Style
from harmony_app.methods.registry import GROUP_METHODS


def method_cost(setup: Setup, unit: tuple[str, str]) -> dict:
    """Cost of harmonizing the first scan of a contrast to the next site.

    Parameters
    ----------
    setup : Setup
    unit : tuple of str
        Method and contrast.

    Returns
    -------
    dict
        ``row``, or ``note`` where the method refuses.
    """
    name, contrast = unit
    place = workplace(setup)
    try:
        return {'row': {'contrast': contrast, 'method': name} | _cost(place, setup, name, contrast)}
    except (ValueError, RuntimeError) as error:
        return {'note': f'cost of {name}: left out, {error}'}


def _cost(place, setup: Setup, name: str, contrast: str) -> dict:
    data: Preprocessed = place.data
    source = next(s for s in data.inputs if s.contrast == contrast)
    sources = [s for s in data.inputs if (s.subject, s.session) == (source.subject, source.session)]
    scans = [data.load(s) for s in sources]
    others = [s for s in place.sessions if s != source.session] or place.sessions
    method, style = _ready(data, setup.models, name, contrast, source.subject, others[0])
    networks = networks_of(method)
    cold = measure_cost(harmonize_once, method, scans, style, module=networks)
    # a network's first call costs as its second; a small method's first call loads its libraries
    warm = (
        cold
        if networks is not None
        else measure_cost(harmonize_once, method, scans, style, warm_up=True)
    )
    return {
        'parameters': cold.parameters or 0,
        'gflops': None if cold.flops is None else cold.flops / 1e9,
        'wall_s': warm.wall_seconds,
        'cpu_s': warm.cpu_seconds,
        'memory_gb': (cold.peak_memory - cold.memory_before) / 1e9,
        'process_gb': cold.peak_memory / 1e9,
    }


def harmonize_once(method: Method, scans: Sequence[Scan], style: Style) -> list[Harmonized]:
    """The call that is measured; what HACA3 computed of a session before is not used."""
    if hasattr(method, 'forget'):
        method.forget()
    return method.harmonize(scans, style)


def networks_of(method: Method):
    """The networks that a method runs as one module; None where it has none."""
    from torch import nn

    if method.name == 'transfer':
        return method.network
    if method.name not in DECODERS.values():
        return None
    used = [method.nets, method.fusion if method.detail == 'decoder' else method.transfer.network]
    return nn.ModuleList([module for module in used if module is not None])


def _ready(
    data: Preprocessed,
    models: Sequence[tuple[str, str]],
    name: str,
    contrast: str,
    subject: str,
    target: str,
) -> tuple[Method, Style]:
    by_method: Mapping[str, str] = dict(models)
    compared = Compared(data, [name], by_method)
    style = compared.styles(contrast, subject, target)[name]
    if isinstance(style, Exception):
        raise ValueError(str(style))
    if name in GROUP_METHODS:
        return compared.fitted(name, contrast, subject), style
    method = make_method(name, by_method)
    if method.name in DECODERS.values() and method.detail == 'transfer':
        _ = method.transfer  # loaded before it is measured
    return method, style
