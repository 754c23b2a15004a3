"""Commands as an operator runs them: real processes beside a running gateway."""

import asyncio
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.gateway.api.installation import SECRET, Installation

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent


class Answer(msgspec.Struct, frozen=True):
    """What a command left."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object on stdout."""
        assert self.status == 0, self.err
        return json.loads(self.out)


class Operator(msgspec.Struct, frozen=True):
    """Somebody with a shell on a machine of the installation."""

    environ: dict[str, str]

    async def run(self, *arguments: str, **environ: str) -> Answer:
        """`antiphon` with these arguments, to its end."""
        process = await self.start(*arguments, **environ)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Answer(process.returncode or 0, out.decode(), err.decode())

    async def invoke(self, *arguments: str, **environ: str) -> Answer:
        """The same without the half second that a process takes to start."""
        call = functools.partial(CliRunner().invoke, main, arguments, env=self.environ | environ)
        result = await asyncio.to_thread(call)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """`antiphon` with these arguments."""
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.cli",
            *arguments,
            env=foreign | self.environ | environ | {"PYTHONPATH": str(ROOT)},
            cwd=self.environ["ANTIPHON_HOME"],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


def operator_of(dsn: str, home: Path) -> Operator:
    home.mkdir(parents=True, exist_ok=True)
    return Operator({"ANTIPHON_HOME": str(home), "ANTIPHON_DATABASE_URL": dsn, "ANTIPHON_SECRET_KEY": SECRET})


@pytest.fixture
def operator(installation: Installation) -> Operator:
    return operator_of(installation.dsn, installation.settings.home)


@pytest.fixture(name="operator_of")
def _operator_of() -> Callable[[str, Path], Operator]:
    return operator_of
