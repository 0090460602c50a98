import json

import pytest
import torch

from harmony_app.errors import ModelError, OutputError
from harmony_app.methods.model_folder import (
    METADATA,
    WEIGHTS,
    load_weights,
    read_metadata,
    read_model_folder,
    write_model_folder,
)


@pytest.fixture
def folder(tmp_path):
    tensors = {
        'weight': torch.randn(2, 3, generator=torch.Generator().manual_seed(1)),
        'count': torch.tensor([7]),
    }
    write_model_folder(tmp_path / 'model', {'method': 'haca3', 'widths': [8, 16]}, tensors)
    return tmp_path / 'model', tensors


def test_round_trip_keeps_metadata_and_half_precision_weights(folder):
    path, tensors = folder
    metadata, read = read_model_folder(path, 'haca3')
    assert metadata['widths'] == [8, 16]
    assert metadata['parameters'] == 7
    assert read['weight'].dtype == torch.float32
    assert torch.equal(read['weight'], tensors['weight'].half().float())
    assert torch.equal(read['count'], tensors['count'])
    assert sorted(p.name for p in path.iterdir()) == [METADATA, WEIGHTS]


def test_full_precision_is_exact(tmp_path):
    weight = torch.randn(5, generator=torch.Generator().manual_seed(2))
    write_model_folder(tmp_path, {'method': 'haca3'}, {'weight': weight}, half=False)
    assert torch.equal(read_model_folder(tmp_path, 'haca3')[1]['weight'], weight)


def test_other_method_is_refused(folder):
    with pytest.raises(ModelError, match='of the method haca3, not of transfer'):
        read_model_folder(folder[0], 'transfer')


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match='nowhere is no model folder'):
        read_model_folder(tmp_path / 'nowhere', 'haca3')


def test_absent_weights(folder):
    (folder[0] / WEIGHTS).unlink()
    with pytest.raises(ModelError, match='incomplete'):
        read_model_folder(folder[0], 'haca3')


@pytest.mark.parametrize('position', [0, 40, -1])
def test_a_single_changed_byte_is_found(folder, position):
    path = folder[0] / WEIGHTS
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match='sha256 differs'):
        read_model_folder(folder[0], 'haca3')


@pytest.mark.parametrize('text', ['{"method": ', '[]', '{"method": 3}', '{}'])
def test_broken_metadata(folder, text):
    (folder[0] / METADATA).write_text(text)
    with pytest.raises(ModelError, match=METADATA):
        read_metadata(folder[0])


def test_what_is_no_safetensors_file_is_refused_even_with_its_checksum(folder):
    import hashlib

    path = folder[0]
    (path / WEIGHTS).write_bytes(b'nothing of the kind')
    metadata = json.loads((path / METADATA).read_text())
    metadata['weights_sha256'] = hashlib.sha256(b'nothing of the kind').hexdigest()
    (path / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match='not a safetensors file'):
        read_model_folder(path, 'haca3')


def test_weights_that_do_not_fit_are_named(tmp_path):
    layer = torch.nn.Linear(3, 2)
    good = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    load_weights(layer, good, tmp_path)
    with pytest.raises(ModelError, match='lack bias'):
        load_weights(layer, {'weight': good['weight']}, tmp_path)
    with pytest.raises(ModelError, match='weight has shape'):
        load_weights(layer, good | {'weight': torch.zeros(2, 4)}, tmp_path)
    with pytest.raises(ModelError, match='extra'):
        load_weights(layer, good | {'extra': torch.zeros(1)}, tmp_path)


def test_infinite_weights_are_never_written(tmp_path):
    with pytest.raises(ModelError, match='not finite'):
        write_model_folder(tmp_path / 'm', {'method': 'haca3'}, {'w': torch.tensor([1e6])})
    assert not (tmp_path / 'm').exists()


def test_an_unwritable_place_is_one_clear_line(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='cannot write the model folder'):
        write_model_folder(tmp_path / 'file' / 'm', {'method': 'haca3'}, {})
