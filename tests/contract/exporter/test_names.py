"""What people call datasets, which is in no digest and binds no version."""

from __future__ import annotations

from support.exporting import ALL_TRAIN, Exporting
from support.serving import fields, refused
from support.traces import trace
from tunix_rt import v1


async def test_a_dataset_is_the_same_whatever_it_is_called(world: Exporting) -> None:
    await world.add([trace(number) for number in range(8)])
    plain = await world.ended((await world.create()).name)
    named = v1.CreateDatasetRequest(
        spec=v1.DatasetSpec(dataset_id="d", as_of=8), display_name="D", tags=["t"]
    )
    again = await world.exporter.CreateDataset(named)
    assert (again.name, again.digest, again.display_name) == (plain.name, plain.digest, "D")
    other = v1.CreateDatasetRequest(
        spec=v1.DatasetSpec(dataset_id="e", as_of=8), note="n", request_id="request"
    )
    made = await world.ended((await world.exporter.CreateDataset(other)).name)
    assert (made.digest, made.note) == (plain.digest, "n")
    changed = v1.Dataset(name=made.name, display_name="E", tags=["t", "u"])
    await world.exporter.UpdateDataset(v1.UpdateDatasetRequest(dataset=changed))
    repeated = await world.exporter.CreateDataset(other)
    assert (repeated.display_name, list(repeated.tags), repeated.note) == ("E", ["t", "u"], "n")
    other.note = "m"
    assert (await refused(world.exporter.CreateDataset(other))).reason == "REQUEST_ID_REUSED"
    for conditions, names in (
        ({"tags": ["t"]}, ["datasets/e@1", "datasets/d@1"]),
        ({"datasets": ["datasets/d", "datasets/e@2"]}, ["datasets/d@1"]),
        ({"states": [v1.Dataset.STATE_FAILED]}, []),
    ):
        request = v1.ListDatasetsRequest(filter=v1.DatasetFilter(**conditions))  # type: ignore[arg-type]
        assert [entry.name for entry in (await world.exporter.ListDatasets(request)).datasets] == names
    request = v1.ListDatasetsRequest(order_by="name")
    assert [entry.name for entry in (await world.exporter.ListDatasets(request)).datasets] == [
        "datasets/d@1",
        "datasets/e@1",
    ]
    unknown = v1.Dataset(name="datasets/none@1", note="n")
    error = await refused(world.exporter.UpdateDataset(v1.UpdateDatasetRequest(dataset=unknown)))
    assert (error.reason, error.code) == ("DATASET_NOT_FOUND", "NOT_FOUND")
    named.tags.append("a\tb")
    error = await refused(world.exporter.CreateDataset(named))
    assert (error.reason, fields(error)) == ("LABELS_INVALID", ["tags[1]"])


async def test_datasets_are_found_by_the_beginning_of_their_ids_and_by_name(world: Exporting) -> None:
    await world.add([trace(0)])
    for name, version in [
        ("gsm8k", "1"),
        ("gsm8k", "10"),
        ("gsm8k-x", "1"),
        ("gsn", "1"),
        ("a_b", "1"),
        ("acb", "1"),
    ]:
        await world.create(name, version=version, splits=ALL_TRAIN)
    update = v1.Dataset(name="datasets/gsn@1", display_name="Für alle")
    await world.exporter.UpdateDataset(v1.UpdateDatasetRequest(dataset=update))

    async def found(**wanted: str) -> list[str]:
        request = v1.ListDatasetsRequest(filter=v1.DatasetFilter(**wanted), order_by="name")
        return [
            entry.name.removeprefix("datasets/")
            for entry in (await world.exporter.ListDatasets(request)).datasets
        ]

    assert await found(id_prefix="gs") == ["gsm8k@1", "gsm8k@10", "gsm8k-x@1", "gsn@1"]
    assert await found(id_prefix="gsm8k@1") == ["gsm8k@1", "gsm8k@10"]
    assert await found(id_prefix="gsm8k@10") == ["gsm8k@10"]
    assert await found(id_prefix="a_") == ["a_b@1"]
    assert (
        await found(id_prefix="%") == await found(id_prefix="GS") == await found(id_prefix="gsm8k@10x") == []
    )
    assert await found(display_name="Für alle") == ["gsn@1"]
    assert await found(display_name="für alle") == await found(display_name="Für") == []
    assert await found(id_prefix="gsm", display_name="Für alle") == []
    request = v1.ListDatasetsRequest(filter=v1.DatasetFilter(id_prefix="x" * 101))
    assert fields(await refused(world.exporter.ListDatasets(request))) == ["filter.id_prefix"]
