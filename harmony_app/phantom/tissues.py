"""Tissues of the head and what an MR scanner can see of them.

Relaxation times come from the literature:

- brain T1 at 1.5 T and water content: Rooney 2007, MRM 57:308 (table 1; WM 656, GM 1188, CSF 4070 ms);
- brain T1 and T2* at 3 T, T2 at 3 T: Wansapura 1999, JMRI 9:531 (WM 832, GM 1331 ms; T2 80, 110 ms);
- brain T2 at 1.5 T, blood: Stanisz 2005, MRM 54:507; CSF T2: Hopkins 1986, MRM 3:604;
- deep grey matter: Gelman 2001, MRM 45:71 (3 T), scaled by Rooney's field dependence to 1.5 T;
- fat, marrow, muscle: de Bazelaire 2004, Radiology 230:652; the apparent T2 of fat in a
  train of refocusing pulses is longer (J coupling: Henkelman 1992, JMRI 2:533);
- MS lesions: Stevenson 2000, AJNR 21:263 and the lesion class of BrainWeb (Kwan 1999, IEEE TMI 18:1085);
- cortical bone: Reichert 2005, MRI 23:611 (T2 near 0.4 ms: no signal at these echo times);
- skin: Richard 1991, J Invest Dermatol 97:120; vitreous: taken as CSF; mucosa: as well
  perfused soft tissue, between muscle and blood.
"""

from dataclasses import dataclass

import torch

TISSUES = (
    'wm',
    'gm',
    'deep_gm',
    'csf',
    'lesion',
    'vessel',
    'bone',
    'marrow',
    'fat',
    'muscle',
    'skin',
    'vitreous',
    'mucosa',
)
"""Order of the tissue axis everywhere; what is left to one is air."""

BRAIN_TISSUES = ('wm', 'gm', 'deep_gm', 'lesion')
"""Tissues of the brain itself."""

OWN_SHARE = 0.4
"""Part of a person's spread that a tissue has for its own; the rest all tissues share."""

# proton density (of water), T1, T2, T2* in ms
_AT_1T5 = {
    'wm': (0.70, 656, 75, 66),
    'gm': (0.82, 1188, 95, 84),
    'deep_gm': (0.78, 950, 84, 70),
    'csf': (1.00, 4070, 2200, 1400),
    'lesion': (0.85, 1250, 170, 130),
    'vessel': (0.85, 1441, 290, 80),
    'bone': (0.15, 220, 0.5, 0.4),
    'marrow': (0.90, 340, 90, 25),
    'fat': (0.95, 300, 110, 40),
    'muscle': (0.75, 950, 40, 30),
    'skin': (0.70, 800, 38, 25),
    'vitreous': (1.00, 3800, 1500, 1000),
    'mucosa': (0.85, 1050, 110, 60),
}
_AT_3T = {
    'wm': (0.70, 832, 72, 48),
    'gm': (0.82, 1331, 95, 52),
    'deep_gm': (0.78, 1130, 76, 42),
    'csf': (1.00, 4200, 2000, 1100),
    'lesion': (0.85, 1500, 150, 100),
    'vessel': (0.85, 1932, 275, 50),
    'bone': (0.15, 250, 0.4, 0.3),
    'marrow': (0.90, 365, 85, 16),
    'fat': (0.95, 370, 105, 30),
    'muscle': (0.75, 1200, 35, 24),
    'skin': (0.70, 950, 35, 18),
    'vitreous': (1.00, 4000, 1400, 800),
    'mucosa': (0.85, 1300, 95, 40),
}


@dataclass(frozen=True)
class TissueProperties:
    """Proton density and relaxation times of every tissue.

    Parameters
    ----------
    proton_density : Tensor, shape (..., K)
        Relative to water, 0 to 1.
    t1, t2, t2_star : Tensor, shape (..., K)
        Relaxation times in ms. K runs over :data:`TISSUES`.
    """

    proton_density: torch.Tensor
    t1: torch.Tensor
    t2: torch.Tensor
    t2_star: torch.Tensor


def tissue_properties(field: float, device: torch.device | str = 'cpu') -> TissueProperties:
    """Literature values at a field strength.

    Between and beyond 1.5 T and 3 T they follow the power law through both values
    (T1 grows with the field as a power: Bottomley 1984, Med Phys 11:425).

    Parameters
    ----------
    field : float
        In tesla, 0.2 to 7.

    Examples
    --------
    >>> float(tissue_properties(3.0).t1[TISSUES.index('wm')])
    832.0
    """
    if not 0.2 <= field <= 7:
        raise ValueError(f'field strength {field} T is outside 0.2 to 7 T')
    low = torch.tensor([_AT_1T5[name] for name in TISSUES], dtype=torch.float32, device=device)
    high = torch.tensor([_AT_3T[name] for name in TISSUES], dtype=torch.float32, device=device)
    weight = torch.log2(torch.tensor(field / 1.5)).item()
    # exact at both ends: exp(log) of a float32 would not be
    values = low if weight == 0 else high if weight == 1 else low * (high / low) ** weight
    return TissueProperties(*values.unbind(dim=1))


def vary_properties(
    properties: TissueProperties, spread: float, generator: torch.Generator
) -> TissueProperties:
    """Draw one person's properties around the literature's.

    Age, hydration and temperature move all tissues of a person the same way, so most of the
    spread is common to them; each keeps a part of its own. Were it all their own, the
    grey-to-white contrast of people at one scanner would differ more than scanners do.

    Parameters
    ----------
    spread : float
        Standard deviation of the logarithm of each relaxation time; that of the proton
        density is a third of it. 0.05 is the between-subject spread of Rooney 2007.
    generator : torch.Generator
        On the device of the properties.
    """

    def varied(values, scale):
        device = values.device
        own = torch.randn(values.shape, generator=generator, device=device)
        common = torch.randn((1,), generator=generator, device=device)
        noise = OWN_SHARE * own + (1 - OWN_SHARE**2) ** 0.5 * common
        return values * torch.exp(scale * noise)

    t2 = varied(properties.t2, spread)
    return TissueProperties(
        proton_density=varied(properties.proton_density, spread / 3).clamp(max=1.0),
        t1=varied(properties.t1, spread),
        t2=t2,
        t2_star=torch.minimum(varied(properties.t2_star, spread), t2),
    )
