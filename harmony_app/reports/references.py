"""Works that a methods text cites, as sentences and as BibTeX."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One work.

    Parameters
    ----------
    key : str
        BibTeX key.
    short : str
        How a text cites it, for example ``Nyúl et al., 2000``.
    authors : str
        As BibTeX wants them: ``Family, Given and Family, Given``; ``and others`` for the rest.
    title, journal : str
    year : int
    place : str
        Volume and pages, or the number of the article.
    doi : str
        Empty where there is none.
    """

    key: str
    short: str
    authors: str
    title: str
    journal: str
    year: int
    place: str = ''
    doi: str = ''

    def sentence(self) -> str:
        """The reference as a line of a list."""
        names = [_initials(name) for name in self.authors.split(' and ')]
        who = ', '.join(names[:-1]) + (' et al.' if names[-1] == 'others' else f', {names[-1]}')
        where = f'{self.journal} {self.place}'.strip()
        link = f' https://doi.org/{self.doi}' if self.doi else ''
        return f'{who.removeprefix(", ")} ({self.year}). {self.title}. {where}.{link}'

    def bibtex(self) -> str:
        """The reference as an entry of a ``.bib`` file."""
        fields = {
            'author': self.authors,
            'title': f'{{{self.title}}}',
            'journal': self.journal,
            'year': str(self.year),
            'pages': self.place,
            'doi': self.doi,
        }
        lines = ',\n'.join(f'  {name} = {{{value}}}' for name, value in fields.items() if value)
        return f'@article{{{self.key},\n{lines}\n}}\n'


def _initials(name: str) -> str:
    """Family name and initials.

    Examples
    --------
    >>> _initials('Avants, Brian B.')
    'Avants BB'
    """
    family, _, given = name.partition(', ')
    letters = ''.join(part[0] for part in given.replace('-', ' ').split())
    return f'{family} {letters}'.strip()


def cite(*keys: str) -> str:
    """Works in brackets.

    Examples
    --------
    >>> cite('nyul2000', 'shinohara2014')
    '(Nyúl et al., 2000; Shinohara et al., 2014)'
    """
    return f'({"; ".join(REFERENCES[key].short for key in keys)})'


def cited_in(text: str) -> list[Reference]:
    """Works that a text cites, by the name of the first author."""
    return [REFERENCES[key] for key in sorted(REFERENCES) if REFERENCES[key].short in text]


def bibliography(references: Sequence[Reference]) -> str:
    """A ``.bib`` file."""
    return '\n'.join(reference.bibtex() for reference in references)


_NEUROIMAGE, _TMI, _MEDIA = (
    'NeuroImage',
    'IEEE Transactions on Medical Imaging',
    'Medical Image Analysis',
)
_FRONTIERS = 'Frontiers in Neuroinformatics'

_WORKS = (
    Reference(
        'abraham2014',
        'Abraham et al., 2014',
        'Abraham, Alexandre and Pedregosa, Fabian and Eickenberg, Michael and others',
        'Machine learning for neuroimaging with scikit-learn',
        _FRONTIERS,
        2014,
        '8:14',
        '10.3389/fninf.2014.00014',
    ),
    Reference(
        'avants2011',
        'Avants et al., 2011',
        'Avants, Brian B. and Tustison, Nicholas J. and Song, Gang and Cook, Philip A. and Klein, Arno '
        'and Gee, James C.',
        'A reproducible evaluation of ANTs similarity metric performance in brain image registration',
        _NEUROIMAGE,
        2011,
        '54(3):2033-2044',
        '10.1016/j.neuroimage.2010.09.025',
    ),
    Reference(
        'cackowski2023',
        'Cackowski et al., 2023',
        'Cackowski, Stenzel and Barbier, Emmanuel L. and Dojat, Michel and Christen, Thomas',
        'ImUnity: A generalizable VAE-GAN solution for multicenter MR image harmonization',
        _MEDIA,
        2023,
        '88:102799',
        '10.1016/j.media.2023.102799',
    ),
    Reference(
        'chen2016',
        'Chen et al., 2016',
        'Chen, Jiawen and Adams, Andrew and Wadhwa, Neal and Hasinoff, Samuel W.',
        'Bilateral guided upsampling',
        'ACM Transactions on Graphics',
        2016,
        '35(6):203',
        '10.1145/2980179.2982423',
    ),
    Reference(
        'fonov2011',
        'Fonov et al., 2011',
        'Fonov, Vladimir and Evans, Alan C. and Botteron, Kelly and Almli, C. Robert and McKinstry, '
        'Robert C. and Collins, D. Louis',
        'Unbiased average age-appropriate atlases for pediatric studies',
        _NEUROIMAGE,
        2011,
        '54(1):313-327',
        '10.1016/j.neuroimage.2010.07.033',
    ),
    Reference(
        'fortin2016',
        'Fortin et al., 2016',
        'Fortin, Jean-Philippe and Sweeney, Elizabeth M. and Muschelli, John and Crainiceanu, Ciprian M. '
        'and Shinohara, Russell T.',
        'Removing inter-subject technical variability in magnetic resonance imaging studies',
        _NEUROIMAGE,
        2016,
        '132:198-212',
        '10.1016/j.neuroimage.2016.02.036',
    ),
    Reference(
        'gharbi2017',
        'Gharbi et al., 2017',
        'Gharbi, Michaël and Chen, Jiawen and Barron, Jonathan T. and Hasinoff, Samuel W. and Durand, '
        'Frédo',
        'Deep bilateral learning for real-time image enhancement',
        'ACM Transactions on Graphics',
        2017,
        '36(4):118',
        '10.1145/3072959.3073592',
    ),
    Reference(
        'gorgolewski2011',
        'Gorgolewski et al., 2011',
        'Gorgolewski, Krzysztof and Burns, Christopher D. and Madison, Cindee and Clark, Dav and '
        'Halchenko, Yaroslav O. and Waskom, Michael L. and Ghosh, Satrajit S.',
        'Nipype: a flexible, lightweight and extensible neuroimaging data processing framework in Python',
        _FRONTIERS,
        2011,
        '5:13',
        '10.3389/fninf.2011.00013',
    ),
    Reference(
        'gorgolewski2016',
        'Gorgolewski et al., 2016',
        'Gorgolewski, Krzysztof J. and Auer, Tibor and Calhoun, Vince D. and others',
        'The brain imaging data structure, a format for organizing and describing outputs of '
        'neuroimaging experiments',
        'Scientific Data',
        2016,
        '3:160044',
        '10.1038/sdata.2016.44',
    ),
    Reference(
        'guan2023',
        'Guan and Liu, 2023',
        'Guan, Hao and Liu, Mingxia',
        'DomainATM: Domain adaptation toolbox for medical data analysis',
        _NEUROIMAGE,
        2023,
        '268:119863',
        '10.1016/j.neuroimage.2023.119863',
    ),
    Reference(
        'nyul2000',
        'Nyúl et al., 2000',
        'Nyúl, László G. and Udupa, Jayaram K. and Zhang, Xuan',
        'New variants of a method of MRI scale standardization',
        _TMI,
        2000,
        '19(2):143-150',
        '10.1109/42.836373',
    ),
    Reference(
        'paszke2019',
        'Paszke et al., 2019',
        'Paszke, Adam and Gross, Sam and Massa, Francisco and others',
        'PyTorch: An imperative style, high-performance deep learning library',
        'Advances in Neural Information Processing Systems',
        2019,
        '32',
    ),
    Reference(
        'roche1998',
        'Roche et al., 1998',
        'Roche, Alexis and Malandain, Grégoire and Pennec, Xavier and Ayache, Nicholas',
        'The correlation ratio as a new similarity measure for multimodal image registration',
        'MICCAI 1998, Lecture Notes in Computer Science',
        1998,
        '1496:1115-1124',
        '10.1007/BFb0056301',
    ),
    Reference(
        'shinohara2014',
        'Shinohara et al., 2014',
        'Shinohara, Russell T. and Sweeney, Elizabeth M. and Goldsmith, Jeff and others',
        'Statistical normalization techniques for magnetic resonance imaging',
        'NeuroImage: Clinical',
        2014,
        '6:9-19',
        '10.1016/j.nicl.2014.08.008',
    ),
    Reference(
        'torbati2023',
        'Torbati et al., 2023',
        'Torbati, Mahbaneh Eshaghzadeh and Minhas, Davneet S. and Laymon, Charles M. and others',
        'MISPEL: A deep learning approach for harmonizing multi-scanner matched neuroimaging data',
        _MEDIA,
        2023,
        '89:102926',
        '10.1016/j.media.2023.102926',
    ),
    Reference(
        'tustison2010',
        'Tustison et al., 2010',
        'Tustison, Nicholas J. and Avants, Brian B. and Cook, Philip A. and Zheng, Yuanjie and Egan, '
        'Alexander and Yushkevich, Paul A. and Gee, James C.',
        'N4ITK: Improved N3 bias correction',
        _TMI,
        2010,
        '29(6):1310-1320',
        '10.1109/TMI.2010.2046908',
    ),
    Reference(
        'wells1996',
        'Wells et al., 1996',
        'Wells, William M. and Grimson, W. Eric L. and Kikinis, Ron and Jolesz, Ferenc A.',
        'Adaptive segmentation of MRI data',
        _TMI,
        1996,
        '15(4):429-442',
        '10.1109/42.511747',
    ),
    Reference(
        'wu2024',
        'Wu et al., 2024',
        'Wu, Mengqi and Zhang, Lintao and Yap, Pew-Thian and Zhu, Hongtu and Liu, Mingxia',
        'Disentangled latent energy-based style translation: An image-level structural MRI '
        'harmonization framework',
        'Neural Networks',
        2024,
        '107039',
        '10.1016/j.neunet.2024.107039',
    ),
    Reference(
        'yarkoni2019',
        'Yarkoni et al., 2019',
        'Yarkoni, Tal and Markiewicz, Christopher J. and de la Vega, Alejandro and others',
        'PyBIDS: Python tools for BIDS datasets',
        'Journal of Open Source Software',
        2019,
        '4(40):1294',
        '10.21105/joss.01294',
    ),
    Reference(
        'zhao2021',
        'Zhao et al., 2021',
        'Zhao, Can and Dewey, Blake E. and Pham, Dzung L. and Calabresi, Peter A. and Reich, Daniel '
        'S. and Prince, Jerry L.',
        'SMORE: A self-supervised anti-aliasing and super-resolution algorithm for MRI using deep '
        'learning',
        _TMI,
        2021,
        '40(3):805-817',
        '10.1109/TMI.2020.3037187',
    ),
    Reference(
        'zuo2021',
        'Zuo et al., 2021',
        'Zuo, Lianrui and Dewey, Blake E. and Liu, Yihao and He, Yufan and Newsome, Scott D. and '
        'Mowry, Ellen M. and Resnick, Susan M. and Prince, Jerry L. and Carass, Aaron',
        'Unsupervised MR harmonization by learning disentangled representations using information '
        'bottleneck theory',
        _NEUROIMAGE,
        2021,
        '243:118569',
        '10.1016/j.neuroimage.2021.118569',
    ),
    Reference(
        'zuo2023',
        'Zuo et al., 2023',
        'Zuo, Lianrui and Liu, Yihao and Xue, Yuan and others',
        'HACA3: A unified approach for multi-site MR image harmonization',
        'Computerized Medical Imaging and Graphics',
        2023,
        '109:102285',
        '10.1016/j.compmedimag.2023.102285',
    ),
)

REFERENCES = {work.key: work for work in _WORKS}
"""Works by their BibTeX keys."""
