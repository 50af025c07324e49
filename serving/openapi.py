# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of the REST API."""

from __future__ import annotations

from typing import Any, Dict, Sequence

from serving.instances import MOST_INSTANCES
from serving.jobs import KEPT, MOST_QUEUED, MOST_QUEUED_BYTES

Schema = Dict[str, Any]

KEPT_MINUTES = round(KEPT.seconds / 60)
FILE: Schema = {"type": "string", "format": "binary"}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
DIRECTION: Schema = {"type": "string", "enum": ["AtoB", "BtoA"]}
BOX: Schema = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 4,
    "maxItems": 4,
    "description": "x0, y0, x1, y1 in pixels of the upright picture; x1 and y1 are excluded",
}
BOXES: Schema = {"type": "array", "items": BOX, "maxItems": MOST_INSTANCES, "example": [[40, 60, 210, 330]]}
MASKS: Schema = {
    "type": "array",
    "items": FILE,
    "maxItems": MOST_INSTANCES,
    "description": "a picture for each instance, white inside, of the picture's proportions",
}
SELECT: Schema = {
    "type": "array",
    "items": NUMBER,
    "minItems": 1,
    "description": (
        "translate only the instances with these numbers, from 0 in the order of masks or boxes, or of the segmenter, "
        "the largest first"
    ),
    "example": [0, 2],
}
SEGMENT: Schema = {
    "type": "string",
    "enum": ["true", "false"],
    "description": "true: find the instances with the server's segmenter",
}


def of(type: str, **properties: Schema) -> Schema:
    """The schema of an object with these properties, all of them there."""
    return {"type": type, "properties": properties, "required": list(properties)}


def or_null(schema: Schema) -> Schema:
    """The schema of a value that may be null."""
    return {**schema, "type": [schema["type"], "null"]}


def many(schema: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": schema}


def ref(name: str) -> Schema:
    """One of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Dict[str, Schema] = {
    "Error": of("object", error={**TEXT, "description": "the cause, and what to do about it"}),
    "Model": of(
        "object",
        name=TEXT,
        directions=many(of("object", direction=DIRECTION, **{"from": TEXT}, to=TEXT, height=NUMBER, width=NUMBER)),
        needs_masks={"type": "boolean", "description": "false: it translates whole pictures"},
    ),
    "Sample": of("object", name=TEXT, model=TEXT, direction=DIRECTION, picture=TEXT, masks=many(TEXT)),
    "About": of(
        "object",
        models=many(ref("Model")),
        segmenter={"type": "boolean"},
        samples=many(ref("Sample")),
        colours={**many(TEXT), "description": "of an instance's outline, by its number"},
        limits=of("object", body_bytes=NUMBER, pixels=NUMBER, instances=NUMBER),
        waiting={**NUMBER, "description": "the length of the queue"},
    ),
    "Picture": of(
        "object", id=TEXT, name=TEXT, height=NUMBER, width=NUMBER, view=TEXT, view_height=NUMBER, view_width=NUMBER
    ),
    "Found": of(
        "object",
        masks={**many(TEXT), "description": "a PNG file for each instance, in base64, of the picture's size"},
        remarks=many(TEXT),
    ),
    "Result": {
        **of(
            "object",
            picture={**TEXT, "description": "address of the translated picture, at its own size (PNG)"},
            before=TEXT,
            after=TEXT,
            outlines_before=TEXT,
            outlines_after=TEXT,
            masks=many(of("object", number=NUMBER, mask=TEXT)),
            archive={**TEXT, "description": "address of all files, as a zip file"},
        ),
        "description": "addresses; `before`, `after` and their outlines are reduced if the picture is large",
    },
    "Job": of(
        "object",
        id=TEXT,
        state={"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
        name=TEXT,
        model=TEXT,
        direction=DIRECTION,
        position={**or_null(NUMBER), "description": "while it is queued: the number of translations before it"},
        done={**NUMBER, "description": "instances translated so far"},
        total={**or_null(NUMBER), "description": "instances to translate, once they are known"},
        seconds={"type": ["number", "null"]},
        remarks=many(TEXT),
        error={**or_null(TEXT), "description": "why it failed"},
        result={"anyOf": [ref("Result"), {"type": "null"}]},
    ),
}
REASONS = {
    400: "not a request that can be read",
    403: "a request of another site's page",
    404: "no such thing (any more)",
    409: "it has no result",
    413: "too large",
    422: "a field or a file that cannot be used",
    421: "sent to a name that is not this server's",
    500: "an error of the server's; its terminal says more",
    503: (
        f"{MOST_QUEUED} translations, or {MOST_QUEUED_BYTES >> 20} MB, are waiting already, or too many requests; "
        "Retry-After says when to try again. Without that header: not enough memory"
    ),
    507: "the server's disk is full",
}


def document() -> Dict[str, Any]:
    """The document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "InstaGAN",
            "version": "1",
            "description": (
                "Translate the instances in a picture. POST /api/translate returns a job; GET it until its state is "
                f"done, failed or cancelled. A result is kept for {KEPT_MINUTES} minutes after its last use."
            ),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {**paths_of_server(), **paths_of_samples(), **paths_of_pictures(), **paths_of_jobs()},
        "components": {"schemas": SCHEMAS},
    }


def paths_of_server() -> Dict[str, Schema]:
    """The descriptions of the server and of its API."""
    return {
        "/api/about": {"get": operation("models, samples and limits", {200: json_of("About")})},
        "/api/openapi.json": {
            "get": operation("this document", {200: content("application/json", {"type": "object"})})
        },
    }


def paths_of_samples() -> Dict[str, Schema]:
    """The files of sample pictures."""
    sample = parameter("number", NUMBER)
    return {
        "/api/samples/{number}/picture": {"get": operation("a sample's picture", {200: PICTURE}, [sample], [404])},
        "/api/samples/{number}/masks/{mask}": {
            "get": operation("a sample's mask", {200: PICTURE}, [sample, parameter("mask", NUMBER)], [404])
        },
    }


def paths_of_pictures() -> Dict[str, Schema]:
    """Pictures that are uploaded to draw masks on them."""
    picture_id = parameter("id", TEXT)
    return {
        "/api/pictures": {
            "post": operation(
                "upload a picture to draw masks on it", {201: json_of("Picture")}, (), UPLOAD, form(image=FILE)
            )
        },
        "/api/pictures/{id}/view": {
            "get": operation("the picture, upright, reduced if it is large", {200: PNG}, [picture_id], [404])
        },
        "/api/pictures/{id}": {"delete": operation("delete it", {204: None}, [picture_id], [403, 404])},
        "/api/pictures/{id}/instances": {
            "post": operation(
                "find instances: in boxes, of a domain with the segmenter, or in mask files",
                {200: json_of("Found")},
                [picture_id],
                [404, *UPLOAD],
                form((), boxes=BOXES, segment={"type": "string", "enum": ["A", "B"]}, masks=MASKS),
            )
        },
    }


def paths_of_jobs() -> Dict[str, Schema]:
    """Translations and their results."""
    job_id = parameter("id", TEXT)
    return {
        "/api/translate": {
            "post": operation(
                "translate the instances of a picture; send image or picture, and masks or boxes or segment",
                {202: json_of("Job")},
                (),
                [404, *UPLOAD],
                form(
                    (),
                    image=FILE,
                    picture={**TEXT, "description": "the id of an uploaded picture, in place of image"},
                    model={**TEXT, "description": "its name; the first one if left out"},
                    direction={**DIRECTION, "description": "the model's first one if left out"},
                    masks=MASKS,
                    boxes=BOXES,
                    segment=SEGMENT,
                    select=SELECT,
                ),
            )
        },
        "/api/jobs/{id}": {
            "get": operation("the state of a translation, and its result", {200: json_of("Job")}, [job_id], [404]),
            "delete": operation(
                "cancel a translation (200), between two passes if it runs; delete one that has ended (204)",
                {200: json_of("Job"), 204: None},
                [job_id],
                [403, 404],
            ),
        },
        "/api/jobs/{id}/{name}": {
            "get": operation(
                f"a file of the result, for {KEPT_MINUTES} minutes after its last use",
                {200: PNG},
                [job_id, parameter("name", TEXT)],
                [404, 409],
            )
        },
        "/api/jobs/{id}/archive": {
            "get": operation(
                "all files of the result", {200: content("application/zip", FILE)}, [job_id], [404, 409]
            )
        },
    }


def content(media: str, schema: Schema) -> Schema:
    """A body of this media type."""
    return {media: {"schema": schema}}


def json_of(name: str) -> Schema:
    """A body with one of `SCHEMAS`."""
    return content("application/json", ref(name))


PNG = content("image/png", FILE)
PICTURE = content("image/*", FILE)
UPLOAD = (400, 403, 413, 422, 503, 507)  # errors of requests with files
ANY = (421, 500)  # errors of all requests


def form(required: Sequence[str] | None = None, **fields: Schema) -> Schema:
    """A body with fields and files, which are all required if not stated; lists but files' are sent as JSON."""
    as_json = {
        name: {"contentType": "application/json"}
        for name, schema in fields.items()
        if schema["type"] == "array" and schema["items"] is not FILE
    }
    schema = {**of("object", **fields), "required": list(fields if required is None else required)}
    media: Schema = {"schema": {**schema, "additionalProperties": False}}
    if as_json:
        media["encoding"] = as_json
    return {"multipart/form-data": media}


def parameter(name: str, schema: Schema) -> Schema:
    """A part of the address."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def operation(
    summary: str,
    answers: Dict[int, Schema | None],
    parameters: Sequence[Schema] = (),
    errors: Sequence[int] = (),
    body: Schema | None = None,
) -> Schema:
    """An operation with its answers by status; None is one without a body."""
    responses: Dict[str, Schema] = {}
    for status, body_schema in answers.items():
        responses[str(status)] = {"description": summary, **({"content": body_schema} if body_schema else {})}
    for status in sorted({*errors, *ANY}):
        responses[str(status)] = {"description": REASONS[status], "content": json_of("Error")}
    described: Schema = {"summary": summary, "responses": responses}
    if parameters:
        described["parameters"] = list(parameters)
    if body:
        described["requestBody"] = {"required": True, "content": body}
    return described
