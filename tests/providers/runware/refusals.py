"""Errors as they stand in `errors`, and the HTTP status that each brings."""

from typing import Any

from tests.providers.runware.account import Json
from tests.providers.runware.faults import Status

_STATUS_OF_CODE = {
    "missingApiKey": 401,
    "invalidApiKey": 401,
    "insufficientCredits": 402,
    "taskNotFound": 404,
    "rateLimitExceeded": 429,
    "internalServerError": 500,
    "providerError": 502,
    "serviceUnavailable": 503,
    "timeoutProvider": 504,
}
_CODE_OF_STATUS = {
    400: "invalidRequest",
    403: "invalidApiKey",
    **{status: code for code, status in _STATUS_OF_CODE.items() if code != "missingApiKey"},
}
_MESSAGES = {
    "missingApiKey": "An API key is required.",
    "invalidApiKey": "The API key is invalid.",
    "insufficientCredits": "The balance does not cover this task.",
    "conflictTaskUUID": "This taskUUID was already used.",
    "taskNotFound": "There is no task of this taskUUID.",
    "rateLimitExceeded": "The queue is full.",
    "unsupportedTaskType": "This taskType is not supported.",
    "invalidJSON": "The body must be a JSON array of task objects.",
    "contentPolicyViolation": "The request violates the content policy.",
}
_WITHOUT_TASK = {"missingApiKey", "invalidApiKey", "invalidJSON"}


class Refusal(Exception):
    """A task is refused: nothing is done, nothing is charged."""

    def __init__(
        self, code: str, message: str | None = None, parameter: str | None = None, **bounds: Any
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or _MESSAGES.get(code, "The request was refused.")
        self.parameter = parameter
        self.bounds = bounds

    @property
    def status(self) -> int:
        return status_of(self.code)

    def error(self, task: Json | None = None) -> Json:
        """As it goes over the wire; an error of a task names the task."""
        error: Json = {"code": self.code, "message": self.message}
        if self.parameter:
            error["parameter"] = self.parameter
        error |= self.bounds
        for member in ("taskType", "taskUUID"):
            if task and isinstance(task.get(member), str) and self.code not in _WITHOUT_TASK:
                error[member] = task[member]
        return error


def status_of(code: str) -> int:
    return _STATUS_OF_CODE.get(code, 400)


def of_status(fault: Status) -> Refusal:
    code = fault.error_code or _CODE_OF_STATUS.get(fault.code, "internalServerError")
    parameter = "apiKey" if code == "invalidApiKey" else None
    return Refusal(code, fault.message, parameter)


def for_authentication(refusal: Refusal) -> Json:
    """On a socket: the list that two of the packages read, and beside it the one that a third reads."""
    error = refusal.error() | {"parameter": "apiKey", "taskType": "authentication"}
    return {"errors": [error], "error": error}
