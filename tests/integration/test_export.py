"""`nightshift export` from either database."""

from pathlib import Path

from tests.unit.export_farm import ExportFarm, tree


def test_both_databases_give_the_same_dataset(tmp_path: Path, postgres_url: str) -> None:
    trees = []
    for name, url in (("sqlite", None), ("postgresql", postgres_url)):
        farm = ExportFarm(tmp_path / name, url)
        farm.batch([{"prompt": f"cat {n}", "seed": 2**64 - 1 - n} for n in range(70)], meta=[{"Art style": "oil"}])
        folder = tmp_path / f"{name}-set"
        farm.export(1, "--format", "webdataset", "--to", folder, "--where", "seed>5", "--shard-size", 30)
        farm.database.close()
        trees.append(tree(folder))
    assert trees[0] == trees[1]
    assert len(trees[0]) == 3 * 3 + 2
