"""What people call datasets, which is in no digest and binds no version."""

from __future__ import annotations

from support.exporting import Exporting
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
