"""What the JSON files and tables of a phantom dataset say."""

from harmony_app import __version__
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import mprage_excitations
from harmony_app.phantom.sites import Site

BIDS_VERSION = '1.10.0'

_SEQUENCES = {
    'MPRAGE': ('Inversion-recovery gradient echo (MPRAGE)', 'GR\\IR', 'SP\\MP'),
    'SPGR': ('Spoiled gradient echo', 'GR', 'SP'),
    'TSE': ('Fast spin echo', 'SE', 'SK'),
    'FLAIR': ('Inversion-recovery fast spin echo (FLAIR)', 'SE\\IR', 'SK'),
}


def scan_sidecar(site: Site, protocol: Protocol) -> dict:
    """Sidecar of a scan: times in seconds, lengths in mm, angles in degrees, field in tesla.

    Parameters
    ----------
    site : Site
        Where it was scanned.
    protocol : Protocol
        With the zooms that were really used.
    """
    name, scanning, variant = _SEQUENCES[protocol.sequence]
    echo_time = site.nominal_echo_times.get(protocol.contrast, protocol.echo_time)
    fields = {
        'Manufacturer': site.manufacturer,
        'ManufacturersModelName': site.model,
        'MagneticFieldStrength': site.field,
        'StationName': site.name,
        'PulseSequenceType': name,
        'ScanningSequence': scanning,
        'SequenceVariant': variant,
        'MRAcquisitionType': protocol.acquisition,
        'RepetitionTime': protocol.repetition_time / 1000,
        'EchoTime': echo_time / 1000,
        'FlipAngle': protocol.flip_angle,
        'SliceThickness': protocol.zooms[2],
        'SpacingBetweenSlices': protocol.zooms[2],
        'SoftwareVersions': f'harmony-phantom {__version__}',
        'Simulated': True,
        'SimulatedSignalToNoiseRatio': protocol.snr,
        'SimulatedReceiveField': site.receive_field,
        'SimulatedReceiveFieldDeviation': protocol.bias,
        'SimulatedPointSpread': site.point_spread,
        'ProtocolSource': site.sources.get(protocol.contrast, 'typical'),
    }
    if protocol.inversion_time:
        fields['InversionTime'] = protocol.inversion_time / 1000
    if protocol.sequence == 'MPRAGE':
        fields['RepetitionTimePreparation'] = protocol.repetition_time / 1000
        fields['RepetitionTimeExcitation'] = protocol.excitation_interval / 1000
        fields['NumberShots'] = mprage_excitations(protocol)
    if echo_time != protocol.echo_time:
        fields['ContrastEquivalentEchoTime'] = protocol.echo_time / 1000
    return {key: round(v, 6) if isinstance(v, float) else v for key, v in fields.items()}


def dataset_description(seed: int, settings: dict) -> dict:
    """``dataset_description.json`` of the scans."""
    return {
        'Name': 'Travelling phantoms',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'raw',
        'License': 'CC0',
        'Authors': ['harmony-phantom'],
        'GeneratedBy': [_generated_by('scans', seed, settings)],
    }


def truth_description(seed: int, settings: dict) -> dict:
    """``dataset_description.json`` of the ground truth."""
    return {
        'Name': 'Ground truth of travelling phantoms',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'License': 'CC0',
        'Authors': ['harmony-phantom'],
        'GeneratedBy': [_generated_by('ground truth', seed, settings)],
        'SourceDatasets': [{'URL': '../..'}],
        'DatasetLinks': {'raw': '../..'},
    }


def _generated_by(what: str, seed: int, settings: dict) -> dict:
    return {
        'Name': 'harmony-phantom',
        'Version': __version__,
        'Description': f'Simulated {what}, seed {seed}',
        'Parameters': settings,
    }


PARTICIPANTS = {
    'group': {
        'Description': 'Group of the simulated person',
        'Levels': {'control': 'no lesions added', 'lesions': 'white-matter lesions added'},
    },
    'traveling_subject': {
        'Description': 'Whether the person was scanned at more than one site',
        'Levels': {'yes': 'at several sites', 'no': 'at one site'},
    },
    'head': {'Description': 'Label map, or icbm, that the head was made of'},
    'atrophy': {'Description': 'Share of the brain volume replaced by fluid', 'Units': 'percent'},
    'lesion_volume': {'Description': 'Volume of the added lesions', 'Units': 'mL'},
}
"""Columns of participants.tsv."""

SESSIONS = {
    'site': {'Description': 'Scanner and protocol, the name of the site in harmony-phantom'}
}
"""Columns of sessions.tsv."""

README = """# Travelling phantoms

Simulated brain MRI of {subjects} person(s) at {sites} site(s), written by harmony-phantom {version}.
Nobody was scanned. A session is a site: the same head, in another position, seen by another
scanner and protocol (column `site` of the sessions tables). Seed {seed}; the same command writes
the same bytes again.

Sites: {names}.

`derivatives/phantom` holds the ground truth: for every scan, on its own grid,
the scan without noise and receive field as each of the sites would show it
(`desc-SITE`), brain and lesion masks, and the tissue fractions of the first contrast.
"""

TRUTH_README = """# Ground truth of travelling phantoms

On the grid of every scan of `../..`:

- `desc-SITE_CONTRAST`: the head without noise and receive field, by the protocol that SITE has for
  this contrast. `desc-SITE` in the session of the same site is the scan's own truth; in the session of
  another site it is what harmonization to SITE should give. Resolution and grid are those of the
  scan; intensities are in SITE's units.
- `space-CONTRAST_desc-brain_mask`, `space-CONTRAST_label-L_mask`: brain and lesions on the grid
  of the scan of that contrast.
- `space-CONTRAST_label-{{GM,WM,CSF}}_probseg`: tissue fractions. GM counts the deep nuclei.

`HeadToScanner` in the sidecars is the rigid transform from the millimetres of the head (the same
in all sessions) to those of the scan.
"""
