"""Answers held against openapi.json: what the description does not say, the server does not answer."""

import json
import re
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from tornado.httpclient import HTTPResponse

URN = "urn:description"


class Described:
    """A description, and what it says of single answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._registry = Registry().with_resource(URN, DRAFT202012.create_resource(document))
        self._paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in document["paths"]]
        self._validators: dict[str, Draft202012Validator] = {}

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """What is said of a call; None for what is none, or goes without saying (OPTIONS, 405)."""
        found = next((name for pattern, name in self._paths if pattern.fullmatch(path.partition("?")[0])), "")
        item = self.document["paths"].get(found, {})
        operation: dict[str, Any] | None = item.get("get" if method == "HEAD" else method.lower())
        return operation

    def check(self, method: str, path: str, answer: HTTPResponse) -> None:
        """Raises ``AssertionError`` for an answer whose status, headers or body is not as it is described."""
        operation = self.operation(method, path)
        if operation is None or answer.code == 500:
            return  # A defect of ours, which tests cause on purpose.
        responses = operation["responses"]
        what = f"{method} {path} answered {answer.code}: {answer.body!r}"
        response = responses.get(str(answer.code), responses.get("default"))
        assert response is not None, f"{what}, of which openapi.json says nothing"
        for name in response["headers"]:
            required = self.document["components"]["headers"][name].get("required", False)
            assert not required or name in answer.headers, f"{what} without {name}"
        if "default" in responses or method == "HEAD":
            return
        media = response.get("content", {}).get("application/json")
        if media is None:
            assert not answer.body, what
            return
        assert answer.headers["Content-Type"] == "application/json; charset=UTF-8", what
        body = json.loads(answer.body)
        problems = [error.message for error in self.of(media["schema"]).iter_errors(body)]
        assert not problems, f"{what}: {problems}"

    def of(self, schema: dict[str, Any]) -> Draft202012Validator:
        """The validator of a schema that stands in the document."""
        text = json.dumps(schema).replace('"#/', f'"{URN}#/')
        if text not in self._validators:
            formats = Draft202012Validator.FORMAT_CHECKER
            self._validators[text] = Draft202012Validator(
                json.loads(text), registry=self._registry, format_checker=formats
            )
        return self._validators[text]
