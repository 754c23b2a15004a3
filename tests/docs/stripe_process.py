"""Stripe's stand-in as a process of its own, for pages that are tried against a whole gateway."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from tests.providers.stripe import API_KEY

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 20


class StripeProcess:
    """Ends with its block; `environ` is what a gateway sets to use it."""

    def __init__(self, port: int, *, gateway_bind: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environ = {
            "ANTIPHON_STRIPE_SECRET_KEY": API_KEY,
            "ANTIPHON_STRIPE_WEBHOOK_SECRET": "whsec_of_the_pages",
            "ANTIPHON_STRIPE_BASE_URL": self.url,
        }
        self._command = [
            *(sys.executable, "-m", "tests.providers.stripe", "--port", str(port)),
            *("--webhook-url", f"http://{gateway_bind}/webhooks/stripe"),
            *("--secret", self.environ["ANTIPHON_STRIPE_WEBHOOK_SECRET"]),
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self._process.stdout is not None
        assert "ANTIPHON_STRIPE_BASE_URL" in self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=STOP_SECONDS)

    def control(self, action: str, **arguments: Any) -> Any:
        """One of the stand-in's controls, such as `payments/pay`."""
        answer = httpx.post(f"{self.url}/_control/{action}", json=arguments, trust_env=False, timeout=20)
        return answer.raise_for_status().json()

    def pay(self, url: str) -> None:
        """The customer presses Pay, or Save, on the page with this address."""
        self.control("payments/pay", session=url.rpartition("/")[2])
