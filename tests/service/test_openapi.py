"""The OpenAPI document: valid, complete, and readable without another server."""

import re

import pytest
from pydantic import TypeAdapter
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.routing import Route

from api.schemas import bids, objects, readings, webhooks

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module")
def written(shared):
    return shared.get("/openapi.json", None).json()


@pytest.fixture(scope="module")
def operations(written):
    found = {
        f"{method.upper()} {path}": operation
        for path, methods in written["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    assert len(found) > 40
    return found


def resolved(written, schema):
    """Schemas that a schema stands for: itself, what it refers to, or the members of a union."""
    if "$ref" in schema:
        return resolved(written, written["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return [one for member in schema.get("oneOf", schema.get("anyOf", [])) for one in resolved(written, member)] or [
        schema
    ]


def test_the_document_is_valid(written):
    assert list(OPENAPI_31_VALIDATOR.iter_errors(written)) == []


def test_every_reference_leads_somewhere(written):
    references = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(written)))
    assert "Problem" in references
    assert references <= written["components"]["schemas"].keys()


def test_every_operation_says_what_it_does(operations):
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert operation["tags"], name
    summaries = [operation["summary"] for operation in operations.values()]
    assert len(set(summaries)) == len(summaries)


def test_every_parameter_says_what_it_is(operations):
    for name, operation in operations.items():
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])


def test_every_operation_documents_its_errors_as_problems(operations):
    for name, operation in operations.items():
        codes = set(operation["responses"])
        expected = {"401", "403", "429", "503"} if operation.get("security") else set()
        expected |= {"400", "413", "415", "422"} if "requestBody" in operation else set()
        expected |= {"422"} if operation.get("parameters") else set()
        expected |= {"404"} if "{" in name else set()
        assert expected <= codes, (name, expected - codes)
        for code in (code for code in codes if code.startswith(("4", "5"))):
            ((kind, content),) = operation["responses"][code]["content"].items()
            assert kind == "application/problem+json", (name, code)
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["example"]["status"] == int(code)


def test_every_page_says_what_its_items_are(written, operations):
    pages = 0
    for name, operation in operations.items():
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        for page in resolved(written, content.get("schema", {})):
            if "items" in page.get("properties", {}):
                pages += 1
                for item in resolved(written, page["properties"]["items"]["items"]):
                    assert item.get("properties"), name
    assert pages > 20


def test_every_body_has_examples(written, operations):
    bodies = {name: operation["requestBody"] for name, operation in operations.items() if "requestBody" in operation}
    assert len(bodies) >= 9
    for name, body in bodies.items():
        ((_, content),) = body["content"].items()
        for schema in resolved(written, content["schema"]):
            assert schema.get("examples"), (name, schema.get("title"))


@pytest.mark.parametrize(
    "model",
    [
        *(bids.EnergyBid, bids.SelfSchedule, bids.ServiceOffer, bids.ReactiveBid, bids.BlockBid, bids.StoreBid),
        *(bids.DeadlineLoad, bids.EnergyBand, bids.Batch, objects.KeyIn, objects.ParticipantIn),
        *(objects.FeederIn, objects.ResourceIn, objects.MarketIn, objects.RunIn, objects.SettleIn, readings.ReadingsIn),
        webhooks.WebhookIn,
    ],
)
def test_examples_are_sound(model):
    for example in model.model_config["json_schema_extra"]["examples"]:
        TypeAdapter(model).validate_python(example)
        for bid in example.get("bids", ()):
            bids.BID.validate_python(bid)


def test_the_page_needs_no_other_server(shared):
    page = shared.get("/docs", None)
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text) + re.findall(r"url: '([^']+)'", page.text)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/") and not address.startswith("//"), address
        assert shared.get(address, None).status_code == 200, address
    assert "https://" not in page.text
    script = next(address for address in addresses if address.endswith(".js"))
    assert len(shared.get(script, None).content) > 500_000


def test_no_other_page_is_served(shared):
    assert {route.path for route in shared.app.routes if isinstance(route, Route)} >= {"/docs", "/openapi.json"}
    assert shared.get("/redoc", None).status_code == 404
