"""Pictures of feature tables: the components of a plain SVD, clusters that stay clusters."""

import numpy as np
import pytest

from harmony_app.evaluation.embedding import embed_pca, embed_tsne


@pytest.fixture(scope='module')
def clusters():
    """Three groups of eight scans; units differ by far, one feature is constant."""
    generator = np.random.default_rng(1)
    centres = np.repeat(10 * generator.normal(size=(3, 6)), 8, axis=0)
    table = (centres + generator.normal(size=(24, 6))) * np.logspace(-3, 3, 6)
    return np.column_stack([table, np.full(24, 0.1)]), np.repeat(np.arange(3), 8)


def same_group_is_nearest(points, groups):
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return (groups[distance.argmin(axis=1)] == groups).all()


def test_pca_is_that_of_a_plain_svd(clusters):
    table, _ = clusters
    picture = embed_pca(table)
    standardized = (table[:, :6] - table[:, :6].mean(axis=0)) / table[:, :6].std(axis=0)
    left, values, _ = np.linalg.svd(standardized, full_matrices=False)
    np.testing.assert_allclose(np.abs(picture.points), np.abs(left * values)[:, :2], atol=1e-9)
    np.testing.assert_allclose(picture.explained, (values**2 / (values**2).sum())[:2])
    assert picture.method == 'pca'
    assert picture.perplexity is None


def test_groups_stay_together(clusters):
    table, groups = clusters
    assert same_group_is_nearest(embed_pca(table).points, groups)
    assert same_group_is_nearest(embed_tsne(table).points, groups)


def test_equal_seeds_give_equal_pictures(clusters):
    table, _ = clusters
    np.testing.assert_array_equal(
        embed_tsne(table, seed=4).points, embed_tsne(table, seed=4).points
    )


@pytest.mark.parametrize('count, perplexity', ((5, 4 / 3), (24, 23 / 3), (100, 30)))
def test_the_perplexity_follows_the_number_of_scans(count, perplexity):
    table = np.random.default_rng(0).normal(size=(count, 4))
    picture = embed_tsne(table)
    assert picture.perplexity == pytest.approx(perplexity)
    assert picture.points.shape == (count, 2)
    assert np.isfinite(picture.points).all()


def test_one_feature_is_a_line():
    table = np.arange(6.0)[:, None]
    for picture in (embed_pca(table), embed_tsne(table)):
        assert picture.points.shape == (6, 2)
        assert np.isfinite(picture.points).all()
    assert embed_pca(table).explained == (1.0, 0.0)
    assert (embed_pca(table).points[:, 1] == 0).all()


def test_what_makes_no_picture_is_refused():
    table = np.random.default_rng(0).normal(size=(8, 3))
    with pytest.raises(ValueError, match='2 scans are too few'):
        embed_pca(table[:2])
    with pytest.raises(ValueError, match='4 scans are too few'):
        embed_tsne(table[:4])
    with pytest.raises(ValueError, match='constant'):
        embed_pca(np.ones((8, 3)))
    with pytest.raises(ValueError, match='perplexity'):
        embed_tsne(table, perplexity=8)
    for bad in (table[0], np.where(table > 1, np.nan, table)):
        with pytest.raises(ValueError, match='finite'):
            embed_pca(bad)
