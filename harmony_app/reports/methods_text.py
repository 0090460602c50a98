"""What was done, in sentences for the methods part of a paper, with what to cite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harmony_app.reports.references import cite, cited_in


@dataclass(frozen=True)
class TargetFacts:
    """The target of a contrast.

    Parameters
    ----------
    contrast, name : str
    scans : int
        Scans that the style is averaged over; 0 where it is not known.
    """

    contrast: str
    name: str
    scans: int = 0


@dataclass(frozen=True)
class MethodFacts:
    """What was done to the scans of one method.

    Parameters
    ----------
    method : str
        Name in the registry.
    contrasts : tuple of str
        Contrasts that were harmonized.
    targets : tuple of TargetFacts
    details : frozenset of str
        Where the detail came from: ``transfer``, ``decoder``.
    fusions : frozenset of str
        How orientations were fused: ``network``, ``median``.
    noises : frozenset of str
        What became of noise: ``kept``, ``reduced``, ``removed``; of the transfer.
    site_average : bool
        Whether scans went to the target as the averages of their sites do.
    fluid : bool
        Whether CSF was moved where the contrasts of the session told it.
    imputed : tuple of str
        Contrasts that were made without being acquired.
    model : str
        sha256 of the weights; empty without a model.
    device : str
        Empty without a network.
    seed : int or None
    """

    method: str
    contrasts: tuple[str, ...]
    targets: tuple[TargetFacts, ...]
    details: frozenset[str] = frozenset()
    fusions: frozenset[str] = frozenset()
    noises: frozenset[str] = frozenset()
    site_average: bool = False
    fluid: bool = False
    imputed: tuple[str, ...] = ()
    model: str = ''
    device: str = ''
    seed: int | None = None


@dataclass(frozen=True)
class Facts:
    """Everything that the text tells.

    Parameters
    ----------
    methods : tuple of MethodFacts
    version : str
        Of harmony-app.
    scans, sessions : int
        How many were harmonized.
    thick : tuple of str
        Contrasts with thick slices that were interpolated only.
    divided : tuple of str
        Contrasts with thick slices that were divided into thin ones.
    bias_corrected : str
        ``all``, ``some`` or ``none``.
    tissue_field : bool
        Whether a field that the tissues share was divided out of a scan.
    several : bool
        Whether a session had several scans.
    masks_given, transforms_given : bool
        Whether masks or transforms came from other datasets.
    packages : mapping of str to str
        Versions by name.
    """

    methods: tuple[MethodFacts, ...]
    version: str
    scans: int
    sessions: int
    thick: tuple[str, ...] = ()
    divided: tuple[str, ...] = ()
    bias_corrected: str = 'all'
    tissue_field: bool = False
    several: bool = False
    masks_given: bool = False
    transforms_given: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)


def methods_text(facts: Facts) -> str:
    """The methods part of a paper: plain text, one paragraph for each step.

    Parameters
    ----------
    facts : Facts
        What was really done; nothing is told that was not.
    """
    paragraphs = [_preprocessing(facts)]
    paragraphs += [_harmonization(method) for method in facts.methods]
    paragraphs.append(_software(facts))
    return '\n\n'.join(paragraphs)


def citation_markdown(text: str) -> str:
    """A text with the works that it cites, as Markdown."""
    works = '\n'.join(f'- {work.sentence()}' for work in cited_in(text))
    return (
        '# Methods and citations\n\nGenerated from the settings that were used. The text may be '
        f'pasted into a paper as it is.\n\n## Methods\n\n{text}\n\n## References\n\n{works}\n'
    )


def _preprocessing(facts: Facts) -> str:
    text = (
        f'{_count(facts.scans, "MR scan")} ({_listed(_contrasts(facts))}) of '
        f'{_count(facts.sessions, "session")} were processed with harmony-app {facts.version}, a '
        f'pipeline for data in the Brain Imaging Data Structure {cite("gorgolewski2016")}. '
    )
    if facts.bias_corrected != 'none':
        scans = 'each scan' if facts.bias_corrected == 'all' else 'scans that allowed it'
        text += (
            f'Intensity non-uniformity of {scans} was corrected with the N4 algorithm '
            f'{cite("tustison2010")}, on a grid of 4 mm. '
        )
    else:
        text += 'Intensity non-uniformity was not corrected. '
    template = f'the template ICBM 152 2009a symmetric (MNI152NLin2009aSym) {cite("fonov2011")}'
    if facts.transforms_given:
        text += f'Scans were placed rigidly on {template} by transforms that were given. '
    else:
        text += (
            f'One scan of each session was placed rigidly on {template}, by the correlation ratio of '
            f'its intensities and the tissue maps of the template {cite("roche1998")}; the maps and '
            f'the brain mask were carried to the scan by an affine transform and a deformation '
            f'estimated with ANTs {cite("avants2011")}. '
        )
        if facts.several:
            text += 'The other scans of the session were aligned rigidly to it. '
    if facts.masks_given:
        text += 'Brain masks were those of another dataset. '
    if facts.divided:
        text += (
            f'Thick slices ({_listed(facts.divided)}) were divided into thin ones of about 1 mm by '
            f'self-supervised super-resolution in the manner of SMORE {cite("zhao2021")}, then '
            "interpolated on the template's grid by cubic B-splines. "
        )
    if facts.thick:
        text += (
            f'Thick slices ({_listed(facts.thick)}) were interpolated to 1 mm by cubic B-splines on '
            "the template's grid. "
        )
    if facts.tissue_field:
        text += (
            'The smooth field that grey and white matter still shared was divided out '
            f'{cite("wells1996")}. '
        )
    return text + 'Intensities were divided by the peak of white matter.'


def _harmonization(facts: MethodFacts) -> str:
    targets = _listed([_told(target) for target in facts.targets])
    # a method that was added, and has no sentence of its own yet, is told by its name
    plain = f'Scans were harmonized by the method {facts.method}.'
    text = f'{_DESCRIPTIONS.get(facts.method, plain)} '
    if targets:
        text += f'The target was {targets}. '
    if 'transfer' in facts.details and facts.method != 'transfer':
        text += f'The contrast was then carried onto the detail of the scan itself: {_TRANSFER}. '
    if 'decoder' in facts.details:
        text += "The result is the decoder's image. "
    if facts.fusions:
        how = {'network': 'a three-dimensional network', 'median': 'their median'}
        words = ' or '.join(how[name] for name in sorted(facts.fusions))
        text += f'Axial, coronal and sagittal results were fused by {words}. '
    if facts.site_average:
        text += (
            'Where the average of the site of a scan was known, the scan went to the target as that '
            'average does, so that people keep what they differ in. '
        )
    if facts.fluid:
        text += (
            'Where one map of intensities could not bring CSF to the target, it was moved by the share '
            'of fluid that the contrasts of the session tell. '
        )
    noises = {
        'reduced': 'Noise stronger than that of the target was reduced to it. ',
        'removed': 'Noise was removed. ',
    }
    text += ''.join(noises[name] for name in sorted(facts.noises) if name in noises)
    if facts.imputed:
        text += (
            f'{_listed(facts.imputed)} images were synthesized where they had not been acquired; they '
            'are no measurements. '
        )
    if facts.model:
        text += f'The weights of the model have the SHA-256 {facts.model}. '
    return text.strip()


def _software(facts: Facts) -> str:
    tools = [
        ('nipype', 'Nipype', 'gorgolewski2011'),
        ('pybids', 'PyBIDS', 'yarkoni2019'),
        ('nilearn', 'Nilearn (the template)', 'abraham2014'),
    ]
    if any(method.model for method in facts.methods):
        tools.append(('torch', 'PyTorch', 'paszke2019'))
    named = [
        f'{title}{_version(facts.packages, name)} {cite(key)}'
        for name, title, key in tools
    ]  # fmt: skip
    seeds = sorted({method.seed for method in facts.methods if method.seed is not None})
    text = f'The pipeline uses {_listed(named)}.'
    if seeds:
        text += f' The random seed was {_listed([str(seed) for seed in seeds])}.'
    return text


_TRANSFER = (
    'coefficients of local affine maps of intensity, predicted by a small three-dimensional network '
    f'as a bilateral grid {cite("chen2016", "gharbi2017")} from the scan and the tissue profiles of '
    'scan and target, which can neither draw nor erase a structure'
)

_DESCRIPTIONS = {
    'transfer': f'Scans were harmonized by contrast transfer: {_TRANSFER}.',
    'haca3': 'Scans were harmonized with HACA3 '
    f'{cite("zuo2023")}: slices of all contrasts of a session are encoded in anatomy, contrast and '
    'artifacts, attention weighs the anatomies, and a decoder draws the slice in the contrast of the '
    'target.',
    'calamiti': 'Scans were harmonized with CALAMITI '
    f'{cite("zuo2021")}: slices are encoded in anatomy and contrast, and decoded with the contrast of '
    'the target.',
    'imunity': 'Scans were harmonized with ImUnity '
    f'{cite("cackowski2023")}: slices are encoded in a map of anatomy that training takes the site '
    'from, and decoded with the contrast of the target.',
    'mispel': 'Scans were harmonized with MISPEL '
    f'{cite("torbati2023")}, which brings scans of the scanners that it was trained on to their middle '
    'ground.',
    'dlest': 'Scans were harmonized with DLEST '
    f'{cite("wu2024")}: slices are encoded without their site, Langevin dynamics lead the code to low '
    'energy of the target, and a decoder shows it.',
    'none': 'Scans were not harmonized further.',
    'histogram-matching': 'Scans were harmonized by histogram matching: the quantiles of the brain '
    'were mapped to those of the target.',
    'white-stripe': 'Scans were harmonized with White Stripe '
    f'{cite("shinohara2014")}: mean and standard deviation of normal-appearing white matter were '
    'mapped to those of the target.',
    'nyul': 'Scans were harmonized by piecewise linear histogram landmarks '
    f'{cite("nyul2000")}, mapped to those of the target.',
    'ssimh': 'Scans were harmonized by spectrum swapping '
    f'{cite("guan2023")}: the lowest spatial frequencies of the brain were replaced by those of the '
    'target.',
    'ravel': f'Scans were harmonized with RAVEL {cite("fortin2016")}.',
}
"""What each method does."""


def _told(target: TargetFacts) -> str:
    if target.scans > 1:
        return f'"{target.name}" for {target.contrast} (the average of {target.scans} scans)'
    return f'"{target.name}" for {target.contrast}'


def _contrasts(facts: Facts) -> list[str]:
    return list(dict.fromkeys(c for method in facts.methods for c in method.contrasts))


def _count(number: int, noun: str) -> str:
    """A number with its noun.

    Examples
    --------
    >>> _count(1, 'scan'), _count(2, 'scan')
    ('1 scan', '2 scans')
    """
    return f'{number} {noun}{"s" * (number != 1)}'


def _listed(items: Sequence[str]) -> str:
    """Items with commas and an ``and``.

    Examples
    --------
    >>> _listed(['a', 'b', 'c']), _listed(['a'])
    ('a, b and c', 'a')
    """
    return ' and '.join([', '.join(items[:-1]), items[-1]]) if len(items) > 1 else ''.join(items)


def _version(packages: Mapping[str, str], name: str) -> str:
    return f' {packages[name]}' if name in packages else ''
