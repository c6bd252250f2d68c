"""No value shows a secret when it is printed, by whoever logs it or by a traceback."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator

import msgspec
import pytest
from pydantic import BaseModel, SecretStr

import flows
import oci
import tasks
from flows.cli.click_ext import Invocation
from oci.archive.options import S3Options
from oci.registry.credentials.config_files import ConfigFile, HelperProgram
from oci.registry.credentials.credential import Credential, Fixed
from oci.registry.options import RegistryOptions
from tasks.blocks import RegistryCredentials

SECRET = "not-to-be-shown-51d0"
SECRET_NAME = re.compile(r"password|secret|(^|_)token$|^auths$|^environ$|^proxy$")
CREDENTIAL = Credential("bob", SECRET, identity_token=SECRET, registry_token=SECRET)
ENVIRON = {"IMGPKG_PASSWORD": SECRET}


def types() -> Iterator[type]:
    for package in (oci, tasks, flows):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found = vars(importlib.import_module(module.name))
            yield from (one for one in found.values() if isinstance(one, type) and one.__module__ == module.name)


def test_every_field_of_a_value_that_may_hold_a_secret_is_left_out_of_its_repr() -> None:
    """Fields of dataclasses by their declaration, fields of msgspec's structs by what an instance shows."""
    fields = [
        (f"{one.__module__}.{one.__qualname__}.{field.name}", field.repr)
        for one in types()
        if dataclasses.is_dataclass(one)
        for field in dataclasses.fields(one)
        if SECRET_NAME.search(field.name)
    ]
    for one in types():
        if issubclass(one, msgspec.Struct):
            names = one.__struct_fields__
            secret = [name for name in names if SECRET_NAME.search(name)]
            if secret:
                value = one(**{name: SECRET if name in secret else None for name in names})
                fields.append((f"{one.__module__}.{one.__qualname__}.{secret}", SECRET in repr(value) + str(value)))

    assert len(fields) >= 4
    assert [name for name, shown in fields if shown] == []


def test_every_field_of_a_model_that_may_hold_a_secret_is_masked() -> None:
    fields = [
        (f"{one.__qualname__}.{name}", field.annotation)
        for one in types()
        if issubclass(one, BaseModel)
        for name, field in one.model_fields.items()
        if SECRET_NAME.search(name) and name != "proxy"  # refused when it has a login
    ]

    assert len(fields) >= 3
    assert [name for name, annotation in fields if annotation not in {SecretStr, SecretStr | None}] == []


def invocation() -> Invocation:
    value = Invocation()
    value.logins = {"registry_password": SECRET}
    return value


@pytest.mark.parametrize(
    "value",
    [
        CREDENTIAL,
        Fixed(CREDENTIAL),
        ConfigFile("/config.json", {"auths": {"corp.example": {"auth": SECRET}}}, ENVIRON),
        HelperProgram("pass", ENVIRON),
        RegistryOptions(proxy=f"http://bob:{SECRET}@proxy.example"),
        S3Options(secret_key=SECRET, session_token=SECRET),
        invocation(),
        RegistryCredentials(registry="corp.example", username="bob", password=SecretStr(SECRET)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_secret_does_not_show_it(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in str(value)
    assert SECRET not in f"{[value]}"
