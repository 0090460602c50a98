"""Nipype interfaces: each runs one step of :mod:`harmony_app.workflows.steps`."""

import json
from functools import partial
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from harmony_app.config import SUPER_RESOLUTION


class _RecordOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='record of the step')


class _PrepareInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='scan')
    scan_name = traits.Str(mandatory=True, desc='entities and contrast of the scan')
    contrast = traits.Str(mandatory=True, desc='T1w, T2w, PDw or FLAIR')
    volume = traits.Int(desc='volume of a PDT2 image')
    site = traits.Str(desc='scanner and protocol')
    mask_file = File(exists=True, desc='brain mask on the grid of the scan')
    transform_file = File(exists=True, desc='affine transform to the template, ITK text')
    sloppy = traits.Bool(False, usedefault=True, desc='leave the bias field where it is')
    bare = traits.Bool(desc='whether the scan shows a brain only')
    super_resolution = traits.Enum(
        *SUPER_RESOLUTION, usedefault=True, desc='which thick slices are divided'
    )


class PrepareScan(SimpleInterface):
    """Read a scan, check it, take its bias field off."""

    input_spec = _PrepareInputSpec
    output_spec = _RecordOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.workflows.steps import prepare_scan

        given = self.inputs
        out = prepare_scan(
            Path(runtime.cwd) / 'prepared.zip',
            Path(given.in_file),
            given.scan_name,
            given.contrast,
            given.volume if isdefined(given.volume) else None,
            given.site if isdefined(given.site) else None,
            Path(given.mask_file) if isdefined(given.mask_file) else None,
            Path(given.transform_file) if isdefined(given.transform_file) else None,
            given.sloppy,
            given.bare if isdefined(given.bare) else None,
            given.super_resolution,
        )
        self._results['out_file'] = str(out)
        return runtime


class _AlignInputSpec(BaseInterfaceInputSpec):
    prepared = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    seed = traits.Int(mandatory=True, desc='seed of the samplers')


class AlignSession(SimpleInterface):
    """Bring the scans of a session together, and to the template."""

    input_spec = _AlignInputSpec
    output_spec = _RecordOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.workflows.steps import align_session

        out = align_session(
            Path(runtime.cwd) / 'aligned.zip',
            [Path(p) for p in self.inputs.prepared],
            self.inputs.seed,
        )
        self._results['out_file'] = str(out)
        return runtime


class _FinishInputSpec(BaseInterfaceInputSpec):
    prepared = File(exists=True, mandatory=True, desc='record of the scan')
    aligned = File(exists=True, mandatory=True, desc='record of its session')


class FinishScan(SimpleInterface):
    """Resample a scan once to the working grid, scale it, measure its profile."""

    input_spec = _FinishInputSpec
    output_spec = _RecordOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.workflows.steps import finish_scan

        out = finish_scan(
            Path(runtime.cwd) / 'finished.zip',
            Path(self.inputs.prepared),
            Path(self.inputs.aligned),
        )
        self._results['out_file'] = str(out)
        return runtime


class _MethodInputSpec(BaseInterfaceInputSpec):
    method = traits.Str(mandatory=True, desc='name of the method')
    model = traits.Str(desc='model folder')
    model_hash = traits.Str(desc='sha256 of the weights: another model is another result')
    options = traits.Dict(desc='settings of the method')
    device = traits.Str('cpu', usedefault=True, desc='torch device')
    # Nipype counts a node with this trait against the slots of the accelerators.
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='runs on an accelerator')
    falls_back = traits.Bool(
        False, usedefault=True, nohash=True, desc='whether the CPU may take over from the device'
    )
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='threads of torch')
    seed = traits.Int(desc='random seed')


class _EncodeInputSpec(_MethodInputSpec):
    prepared = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    finished = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    aligned = InputMultiObject(
        File(exists=True), mandatory=True, desc='record of the session of each scan'
    )
    targets = traits.Dict(mandatory=True, desc='by contrast: names of its target scans')
    names = traits.Dict(mandatory=True, desc='by contrast: name of the style')


class _EncodeOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='JSON file with a style for each contrast')


class EncodeTarget(SimpleInterface):
    """Turn preprocessed target scans into styles."""

    input_spec = _EncodeInputSpec
    output_spec = _EncodeOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.bids.atomic import write_json
        from harmony_app.errors import InputError
        from harmony_app.workflows.harmonizing import encode_style, load_scans
        from harmony_app.workflows.records import Record

        given = self.inputs
        scans = load_scans(
            *([Path(p) for p in paths] for paths in (given.prepared, given.finished, given.aligned))
        )
        peaks = {
            record.facts['name']: record.facts['wm_peak']
            for record in map(Record, given.finished)
            if not record.failure
        }

        def encode(method, device: str) -> dict:
            styles: dict = {}
            for contrast, wanted in given.targets.items():
                group = [s for s in scans if s.name in wanted and s.contrast == contrast]
                if not group:
                    raise InputError(
                        f'--target {given.names[contrast]}: none of its {contrast} scans can be used'
                    )
                style = encode_style(method, group, given.names[contrast], peaks)
                styles[contrast] = style.to_dict()
            return styles

        styles = _with_method(given, encode)
        out = write_json(Path(runtime.cwd) / 'styles.json', styles)
        self._results['out_file'] = str(out)
        return runtime


class _AverageInputSpec(BaseInterfaceInputSpec):
    finished = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    aligned = InputMultiObject(
        File(exists=True), mandatory=True, desc='record of the session of each scan'
    )
    sites = traits.Dict(mandatory=True, desc='by site and contrast: names of the scans')


class _AverageOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='JSON file with a profile for each site and contrast')


class AverageSites(SimpleInterface):
    """Average the profiles of the sites that scans come from."""

    input_spec = _AverageInputSpec
    output_spec = _AverageOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.bids.atomic import write_json
        from harmony_app.workflows.site_averages import average_sites

        given = self.inputs
        finished, aligned = ([Path(p) for p in paths] for paths in (given.finished, given.aligned))
        averages = average_sites(finished, aligned, given.sites)
        out = write_json(Path(runtime.cwd) / 'sites.json', averages)
        self._results['out_file'] = str(out)
        return runtime


class _HarmonizeInputSpec(_MethodInputSpec):
    prepared = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    finished = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    aligned = File(exists=True, mandatory=True, desc='record of the session')
    styles = traits.Str('{}', usedefault=True, desc='JSON: a style for each contrast')
    styles_file = File(exists=True, desc='JSON file with further styles')
    impute = traits.List(traits.Str(), desc='contrasts to make')
    sites = traits.Str('{}', usedefault=True, desc='JSON: profiles by site and contrast')
    sites_file = File(exists=True, desc='JSON file with further ones')


class HarmonizeSession(SimpleInterface):
    """Harmonize the scans of a session."""

    input_spec = _HarmonizeInputSpec
    output_spec = _RecordOutputSpec

    def _run_interface(self, runtime):
        from harmony_app.workflows.harmonizing import (
            harmonize_session,
            load_scans,
            with_site_averages,
        )

        given = self.inputs
        prepared = [Path(p) for p in given.prepared]
        scans = load_scans(
            prepared, [Path(p) for p in given.finished], [Path(given.aligned)] * len(prepared)
        )
        known, styles = with_site_averages(scans, _read_sites(given)), styles_of(given)
        impute = given.impute if isdefined(given.impute) else ()
        path = Path(runtime.cwd) / 'harmonized.zip'

        def harmonize(method, device: str) -> Path:
            return harmonize_session(path, method, known, styles, impute, device)

        out = _with_method(given, harmonize)
        self._results['out_file'] = str(out)
        return runtime


class _WriteInputSpec(BaseInterfaceInputSpec):
    session = traits.Str(mandatory=True, desc='name of the session')
    prepared = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    finished = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    aligned = File(exists=True, mandatory=True, desc='record of the session')
    results = File(exists=True, desc='record of the harmonized scans')
    styles = traits.Str('{}', usedefault=True, desc='JSON: a style for each contrast')
    styles_file = File(exists=True, desc='JSON file with further styles')
    entities = traits.Dict(mandatory=True, desc='entities of each scan by its name')
    bids_dir = traits.Str(mandatory=True, desc='input dataset')
    output_dir = traits.Str(mandatory=True, desc='output folder')
    settings = traits.Dict(desc='goes into every sidecar')
    spaces = traits.List(traits.Str(), desc='grids that images are written on; all by default')
    digest = traits.Str(mandatory=True, desc='hash of settings and inputs')
    run = traits.Str(mandatory=True, desc='name of the run')


class _WriteOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='JSON: how each scan ended')


class WriteSession(SimpleInterface):
    """Write the results of a session, all at once."""

    input_spec = _WriteInputSpec
    output_spec = _WriteOutputSpec
    # The results lie outside the working folder: only the marker there says if they are whole.
    _always_run = True

    def _run_interface(self, runtime):
        from harmony_app.bids.atomic import write_json
        from harmony_app.imaging.grid import SPACES
        from harmony_app.workflows.writing import write_session

        given = self.inputs
        marker = write_session(
            session=given.session,
            prepared=[Path(p) for p in given.prepared],
            finished=[Path(p) for p in given.finished],
            aligned=Path(given.aligned),
            results=Path(given.results) if isdefined(given.results) else None,
            styles=styles_of(given),
            entities=given.entities,
            raw=Path(given.bids_dir),
            root=Path(given.output_dir),
            settings=given.settings if isdefined(given.settings) else {},
            digest=given.digest,
            run=given.run,
            scratch=Path(runtime.cwd),
            spaces=tuple(given.spaces) if isdefined(given.spaces) else SPACES,
        )
        self._results['out_file'] = str(write_json(Path(runtime.cwd) / 'written.json', marker))
        return runtime


def _with_method(given, use):
    """Use the method of a node, with its seed and threads."""
    from harmony_app.workflows.device_memory import within_device_memory

    options = given.options if isdefined(given.options) else {}
    make = partial(_make_method, given)
    return within_device_memory(
        given.method, given.device, dict(options), given.falls_back, make, use
    )


def _make_method(given, device: str, options: dict):
    from harmony_app.methods.registry import get_method

    if isdefined(given.model) or device != 'cpu':
        import torch

        torch.set_num_threads(given.num_threads)
        torch.use_deterministic_algorithms(device == 'cpu')
        if isdefined(given.seed):
            torch.manual_seed(given.seed)
    folder = Path(given.model) if isdefined(given.model) else None
    return get_method(given.method, folder, device, **options)


def styles_of(given) -> dict:
    """Styles by contrast of the inputs ``styles`` and ``styles_file``; the file wins."""
    from harmony_app.methods.base import Style

    styles = json.loads(given.styles)
    if isdefined(given.styles_file):
        styles |= json.loads(Path(given.styles_file).read_text(encoding='utf-8'))
    return {contrast: Style.from_dict(fields) for contrast, fields in styles.items()}


def _read_sites(given) -> dict:
    """Averages that are known, and those that were measured in the run."""
    averages = json.loads(given.sites)
    if isdefined(given.sites_file):
        measured = json.loads(Path(given.sites_file).read_text(encoding='utf-8'))
        for site, profiles in measured.items():
            averages[site] = averages.get(site, {}) | profiles
    return averages
