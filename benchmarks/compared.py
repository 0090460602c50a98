"""The methods that are compared, each with the style of other people at the target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from benchmarks.preprocessed import Preprocessed
from benchmarks.study import others_than
from harmony_app.bids.discovery import ScanInput
from harmony_app.errors import HarmonyError, ModelError, OptionError, ScanError
from harmony_app.methods.base import Harmonized, Method, Scan, Style
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import GROUP_METHODS, METHOD_NAMES, get_method, packaged_model
from harmony_app.training.dlest_energy import fit_energy_to_scans
from harmony_app.training.dlest_settings import ENERGY_LOOP, SITE_STEPS
from harmony_app.training.recipe import TRAINED

MEDIAN = 'calamiti-median'
"""The decoder of CALAMITI without its fusion networks (a row of its Table 3)."""

DECODERS = {f'{method}-decoder': method for method in ('haca3', 'calamiti', 'imunity', 'dlest')}
DECODERS |= {MEDIAN: 'calamiti'}
"""Methods that end in the transfer, by the name of the row with the plain image of their decoder."""

DECODER = 'haca3-decoder'
"""The decoder of the trials and of the robustness."""

METHODS = (*METHOD_NAMES, *DECODERS, *GROUP_METHODS)
"""All methods that can be compared."""


def ready_methods() -> tuple[str, ...]:
    """Those of :data:`METHODS` that need no other model than comes with the package."""
    ready = []
    for name in METHODS:
        try:
            method = DECODERS.get(name, name)
            if method in TRAINED:
                packaged_model(method)
            ready.append(name)
        except ModelError:
            continue
    return tuple(ready)


def find_models(folders: Sequence[Path]) -> dict[str, str]:
    """Model folders by the method that each is of.

    Raises
    ------
    ModelError
        Where a folder is no model.
    OptionError
        For a method that is not compared, or two models of one.
    """
    found: dict[str, str] = {}
    for folder in folders:
        name = read_metadata(folder).get('method')
        if name not in TRAINED or name in found:
            raise OptionError(f'--model {folder}: give one model of {", ".join(TRAINED)} each')
        found[name] = str(folder.resolve())
    return found


def weights_of(models: Mapping[str, str]) -> dict[str, str]:
    """Checksums of the weights that trained methods will use."""
    sums = {}
    for name in TRAINED:
        try:
            folder = Path(models[name]) if name in models else packaged_model(name)
            sums[name] = str(read_metadata(folder)['weights_sha256'])
        except (ModelError, KeyError):
            sums[name] = 'none'
    return sums


def make_method(name: str, models: Mapping[str, str], transfer: Method | None = None) -> Method:
    """A method by its name among :data:`METHODS`; one for groups is not fitted yet.

    ``transfer`` is the last stage of those of :data:`DECODERS`, the one of the models by default.
    """
    if name in GROUP_METHODS:
        from importlib import import_module

        module, attribute = GROUP_METHODS[name].split(':')
        return getattr(import_module(module), attribute)()
    method, options = DECODERS.get(name, name), {}
    if name in DECODERS:
        options['detail'] = 'decoder'
    if name == MEDIAN:
        options['fusion'] = 'median'
    if method in DECODERS.values() and (transfer or 'transfer' in models):
        options['transfer'] = transfer or make_method('transfer', models)
    folder = models.get(method)
    return get_method(method, Path(folder) if folder else None, **options)


def reached(method: Method, style: Style, scans: Sequence[Scan], subject: str) -> Style:
    """A style that a method reaches, fitted to the scans that it was encoded of where it has to be.

    DLEST reaches a site by an energy, which is fitted to scans of other people there, as in the
    paper; its name says who was left out.

    Raises
    ------
    OptionError
        Where the model has no energy of the contrast to begin from.
    """
    if method.reaches(style.name, style.contrast):
        return style
    if method.nets.beginning(style.contrast) is None:
        method.check_target(style)
    style = replace(style, name=f'{style.name} without sub-{subject}')
    if not method.reaches(style.name, style.contrast):
        loop = replace(ENERGY_LOOP, steps=SITE_STEPS)
        fit_energy_to_scans(method.nets, style.name, scans, loop=loop)
    return style


class Remembering(Method):
    """A method that gives its last results again for the same scans and profile.

    Those of :data:`DECODERS` end in the transfer: beside the method ``transfer`` nothing is
    computed twice. The order of the scans of other contrasts does not count.
    """

    def __init__(self, method: Method):
        self.method, self.name = method, method.name
        self.forget()

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """As the method does."""
        same = [id(scan) for scan in session if scan.contrast == target.contrast]
        asked = same, {id(scan) for scan in session}, target.profile, target.scans == 1
        if self._asked != asked:
            self._results = self.method.harmonize(session, target)
            # the scans are kept, so that no other one can be taken for them
            self._asked, self._session = asked, list(session)
        return self._results

    def forget(self) -> None:
        """Let go of the last results."""
        self._asked: tuple | None = None
        self._session: list[Scan] = []
        self._results: list[Harmonized] = []

    def _encode_target(self, scans: Sequence[Scan], name: str) -> Style:
        return self.method._encode_target(scans, name)


class Compared:
    """Methods on a preprocessed dataset.

    Parameters
    ----------
    data : Preprocessed
        The dataset.
    names : sequence of str
        Methods to compare.
    models : mapping of str to str
        Model folders by method, the packaged ones where not given.
    one_person : bool
        A style is one other person's scan, instead of all.
    """

    def __init__(
        self,
        data: Preprocessed,
        names: Sequence[str],
        models: Mapping[str, str],
        one_person: bool = False,
    ):
        self.data, self.names, self.one_person = data, tuple(names), one_person
        both = 'transfer' in names and not set(DECODERS.values()).isdisjoint(names)
        shared = Remembering(make_method('transfer', models)) if both else None
        self.methods: dict[str, Method] = {
            name: shared if shared and name == 'transfer' else make_method(name, models, shared)
            for name in names
        }
        self.styles = lru_cache(maxsize=32)(self._styles)
        self.fitted = lru_cache(maxsize=4)(self._fitted)

    def harmonize(
        self, name: str, session: Sequence[Scan], scan: Scan, subject: str, target: str
    ) -> Harmonized:
        """Harmonize one scan of a session to the site of a target session.

        Every method gets all scans of the session, as the application gives them.

        Raises
        ------
        HarmonyError, ValueError
            Where the method refuses the scan, the target or its group.
        """
        style = self.styles(scan.contrast, subject, target)[name]
        if isinstance(style, Exception):
            raise style
        group = name in GROUP_METHODS
        method = self.fitted(name, scan.contrast, subject) if group else self.methods[name]
        results = [r for r in method.harmonize(session, style) if r.source == scan.name]
        if len(results) != 1:
            raise ScanError(f'{name} gave {len(results)} results for {scan.name}')
        return results[0]

    def forget(self) -> None:
        """Let go of what was computed of a session."""
        for method in self.methods.values():
            if hasattr(method, 'forget'):
                method.forget()

    def target_scans(self, contrast: str, subject: str, target: str) -> list[Scan]:
        """Scans of the other people at a target, preprocessed."""
        people = sorted({source.subject for source in self.data.inputs})
        others = others_than(subject, people, self.one_person)
        found = {s.subject: s for s in self._inputs(contrast) if s.session == target}
        return [self.data.load(found[other]) for other in others if other in found]

    def _styles(self, contrast: str, subject: str, target: str) -> dict[str, Style | Exception]:
        scans = self.target_scans(contrast, subject, target)
        if not scans:
            raise ScanError(f'nobody but sub-{subject} has a {contrast} scan at {target}')
        styles: dict[str, Style | Exception] = {}
        for name, method in self.methods.items():
            try:
                styles[name] = reached(method, method.encode_target(scans, target), scans, subject)
            except (HarmonyError, ValueError) as error:
                styles[name] = error
        self.forget()
        return styles

    def _fitted(self, name: str, contrast: str, subject: str) -> Method:
        method = make_method(name, {})
        method.fit([self.data.load(s) for s in self._inputs(contrast) if s.subject != subject])
        return method

    def _inputs(self, contrast: str) -> list[ScanInput]:
        return [source for source in self.data.inputs if source.contrast == contrast]
