"""Methods and packaged models by name."""

import inspect
from importlib import import_module
from pathlib import Path

from harmony_app.errors import ModelError, OptionError
from harmony_app.methods.base import CONTRASTS, Method, Style
from harmony_app.methods.model_folder import read_metadata

_CLASSES = {
    'transfer': 'harmony_app.methods.transfer:Transfer',
    'haca3': 'harmony_app.methods.haca3:Haca3',
    'calamiti': 'harmony_app.methods.calamiti:Calamiti',
    'imunity': 'harmony_app.methods.imunity:ImUnity',
    'mispel': 'harmony_app.methods.mispel:Mispel',
    'dlest': 'harmony_app.methods.dlest:Dlest',
    'none': 'harmony_app.methods.classical.unchanged:Unchanged',
    'histogram-matching': 'harmony_app.methods.classical.histogram_matching:HistogramMatching',
    'white-stripe': 'harmony_app.methods.classical.white_stripe:WhiteStripe',
    'nyul': 'harmony_app.methods.classical.nyul:Nyul',
    'ssimh': 'harmony_app.methods.classical.ssimh:SpectrumSwapping',
}

METHOD_NAMES = tuple(_CLASSES)
"""Names that ``--method`` takes."""

GROUP_METHODS = {'ravel': 'harmony_app.methods.classical.ravel:Ravel'}
"""Methods that are fitted on a group of scans: for the benchmark and the group level only."""

WEIGHTS = Path(__file__).parent.parent / 'weights'
"""Folder of the models that come with the package."""


def get_method(
    name: str, model_folder: Path | None = None, device: str = 'cpu', **options
) -> Method:
    """Make a method ready to use.

    Parameters
    ----------
    name : str
        One of :data:`METHOD_NAMES`.
    model_folder : Path, optional
        Model of a trained method; the packaged one by default.
    device : str
        Torch device of a trained method; the others do not use one.
    **options
        Settings of the method.

    Raises
    ------
    OptionError
        For an unknown name or option, a method of :data:`GROUP_METHODS`, or a model given to a
        method that has none.
    ModelError
        Where the model is absent or not of this method.

    Examples
    --------
    >>> get_method('white-stripe', width=0.1).width
    0.1
    """
    method = find_class(name)
    make = method.load if method.needs_training else method
    known = inspect.signature(make).parameters.keys() - {'folder', 'device'}
    unknown = sorted(options.keys() - known)
    if unknown:
        takes = ', '.join(sorted(known)) or 'none'
        raise OptionError(f'method {name} has no option {", ".join(unknown)}; it takes {takes}')
    if method.needs_training:
        return make(Path(model_folder or packaged_model(name)), device=device, **options)
    if model_folder is not None:
        raise OptionError(f'method {name} has no model: leave out --model {model_folder}')
    return make(**options)


def method_takes(name: str, option: str) -> bool:
    """Whether a method has an option.

    Examples
    --------
    >>> method_takes('haca3', 'batch'), method_takes('nyul', 'batch')
    (True, False)
    """
    method = find_class(name)
    return option in inspect.signature(method.load if method.needs_training else method).parameters


def packaged_model(name: str) -> Path:
    """Folder of the model of a method that comes with the package.

    Raises
    ------
    ModelError
        Where the package holds none.
    """
    folder = WEIGHTS / f'{name}-default'
    if not (folder / 'model.json').is_file():
        raise ModelError(f'no model of {name} comes with this package: name one with --model')
    return folder


def named_styles() -> dict[str, dict[str, Style]]:
    """Target styles of the packaged transfer model.

    Returns
    -------
    dict of str to dict of str to Style
        By name, then by contrast, in the order of the model.

    Raises
    ------
    ModelError
        Where the model is absent or its styles cannot be read.
    """
    folder = packaged_model('transfer')
    try:
        styles = [Style.from_dict(fields) for fields in read_metadata(folder)['styles']]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'{folder} holds no readable styles ({error!r}): reinstall it') from error
    named: dict[str, dict[str, Style]] = {}
    for style in styles:
        if style.contrast not in CONTRASTS:
            raise ModelError(
                f'{folder}: style {style.name} has no known contrast: {style.contrast}'
            )
        if style.contrast in named.setdefault(style.name, {}):
            raise ModelError(f'{folder}: two styles are named {style.name} for {style.contrast}')
        named[style.name][style.contrast] = style
    return named


def default_styles() -> dict[str, Style]:
    """Style that each contrast is brought to unless a target is named.

    Returns
    -------
    dict of str to Style
        By contrast: the first style of the packaged transfer model for it.

    Raises
    ------
    ModelError
        As :func:`named_styles`, or where a contrast has no style.
    """
    styles: dict[str, Style] = {}
    for by_contrast in named_styles().values():
        for contrast, style in by_contrast.items():
            styles.setdefault(contrast, style)
    missing = [contrast for contrast in CONTRASTS if contrast not in styles]
    if missing:
        raise ModelError(f'the packaged transfer model has no style for {", ".join(missing)}')
    return {contrast: styles[contrast] for contrast in CONTRASTS}


def find_class(name: str) -> type[Method]:
    """Class of a method by its name; OptionError for one that is unknown or for groups."""
    if name in GROUP_METHODS:
        raise OptionError(
            f'method {name} is fitted on a group of scans, so it is for the benchmark and the group '
            f'level: here choose one of {", ".join(METHOD_NAMES)}'
        )
    if name not in _CLASSES:
        raise OptionError(f'unknown method {name!r}: choose one of {", ".join(METHOD_NAMES)}')
    module, attribute = _CLASSES[name].split(':')
    return getattr(import_module(module), attribute)
