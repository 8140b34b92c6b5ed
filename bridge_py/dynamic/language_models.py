"""Language models of DSPy: their providers, how one is made, and how its secrets stay out of messages and logs.

DSPy is imported only when a model is made.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from bridge_py.wire.errors import InvalidCall, NotAllowed, SnakepitError, ToolError, UsageError, tool_error
from bridge_py.wire.extras import install

#: Providers by name, with the name that DSPy and LiteLLM have for each.
PROVIDERS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "bedrock",
    "cohere": "cohere_chat",
    "databricks": "databricks",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "google": "gemini",
    "groq": "groq",
    "huggingface": "huggingface",
    "mistral": "mistral",
    "ollama": "ollama_chat",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together_ai",
    "vertex": "vertex_ai",
    "xai": "xai",
}
DUMMY: Final = "dummy"
#: Settings that callers may give if they are not trusted.
_SETTINGS: Final = frozenset(
    {
        *("model", "api_key", "api_base", "temperature", "max_tokens", "max_completion_tokens", "top_p", "n", "stop"),
        *("seed", "presence_penalty", "frequency_penalty", "reasoning_effort", "num_retries", "timeout", "cache"),
        *("model_type", "rollout_id", "engine"),
    }
)
#: The name of DSPy by which owners allow callers addresses, and the worker's own keys for all providers.
_ANY_MODEL: Final = "LM"
#: Providers whose key is one text, so that the worker's own cannot go to an address of a caller.
_ADDRESSED: Final = ("openai", "ollama")
#: Providers with an address of their own, and one key, which may be a caller's. The others use what the worker has:
#: its credentials for a cloud, its local servers.
_ONE_KEY: Final = frozenset(
    {
        *("anthropic", "cohere", "deepseek", "gemini", "google", "groq", "mistral", "openai", "openrouter", "together"),
        "xai",
    }
)
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,199}")
_NO_KEY: Final = "no-key"  # sent to a caller's own address that needs none, in place of the worker's key
_SECRET: Final = re.compile(r"key|token|secret|password|credential|auth|header", re.IGNORECASE)
_SHORTEST_SECRET: Final = 6  # characters; a shorter text is a placeholder, and would be found in any text
_HIDDEN: Final = "[hidden]"


class Model(msgspec.Struct, weakref=True, eq=False):
    """All that a language model is made from. Its repr shows no settings; its `number` is unique in its process."""

    number: int
    provider: str
    config: dict[str, Any]

    def __repr__(self) -> str:
        return f"<language model {self.name}>"

    @property
    def name(self) -> str:
        """Its name, such as "openai/gpt-4o". Raises `InvalidCall` for an unknown provider, and for invalid settings."""
        if self.provider == DUMMY:
            _check_dummy(self.config)
            return DUMMY
        if self.provider not in PROVIDERS:
            there = ", ".join([*PROVIDERS, DUMMY])
            raise InvalidCall(f"there is no provider {self.provider!r:.100} of language models; there are: {there}")
        prefix, model = PROVIDERS[self.provider], self.config.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidCall(f'{self.provider}: say which model, as in config={{"model": "..."}}')
        return model if model.startswith(f"{prefix}/") else f"{prefix}/{model}"

    def secrets(self) -> list[str]:
        """List the texts that must not be shown: settings whose names contain key, token, header and the like."""
        return sorted(_secrets_in(self.config), key=len, reverse=True)

    def make(self, *, trusted: bool, allowed: Set[str] = frozenset()) -> Any:
        """Make the language model itself, in a worker. `allowed` are the names of "dspy:name" that the owner allows.

        Raises `InvalidCall` if DSPy does not take the settings, and `NotAllowed` if only trusted callers may give them.
        """
        name = self.name
        config = self.config if trusted or self.provider == DUMMY else _of_a_caller(self.provider, self.config, allowed)
        dspy = library()
        if self.provider == DUMMY:
            return dspy.utils.DummyLM(self.config["answers"])
        settings = {key: value for key, value in config.items() if key != "model"}
        keep_out_of_logs(self)
        try:
            # DSPy's cache would share answers between sessions, and write files.
            return dspy.LM(name, **{"cache": False, **settings})
        except Exception as error:
            raise InvalidCall(f"{name}: DSPy does not take these settings: {hide(str(error), self)}") from None


def library() -> Any:
    """Import DSPy. Raises `InvalidCall` if the worker does not have it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or LiteLLM asks the network when it is imported
    try:
        return importlib.import_module("dspy")
    except ModuleNotFoundError as error:
        if error.name != "dspy":
            raise
        raise InvalidCall(f"there is no package 'dspy' in the worker: {install('dspy')}") from None


@contextmanager
def hiding(model: Model | None) -> Iterator[None]:
    """Remove the secrets of a model from the text of errors that leave the block."""
    try:
        yield
    except Exception as error:
        if model is None:
            raise
        shown = tool_error(error, "")
        if not any(secret in shown.message + shown.remote_traceback for secret in model.secrets()):
            raise
        raise _without_secrets(error, shown, model) from None


def hide(text: str, *models: Model) -> str:
    """Remove the secrets of models from a text."""
    for model in models:
        for secret in model.secrets():
            text = text.replace(secret, _HIDDEN)
    return text


def keep_out_of_logs(model: Model) -> None:
    """Remove a model's secrets from all log records of this process, as long as the model exists."""
    with _lock:
        _hidden[:] = [each for each in _hidden if each() is not None] + [weakref.ref(model)]
        factory = logging.getLogRecordFactory()
        if not isinstance(factory, _RecordFactory):
            logging.setLogRecordFactory(_RecordFactory(factory))


_lock: Final = threading.Lock()
_hidden: Final[list[weakref.ref[Model]]] = []


class _RecordFactory:
    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        models = [model for each in tuple(_hidden) if (model := each()) is not None]
        if models:
            _hide_in(record, models)
        return record


def _hide_in(record: logging.LogRecord, models: list[Model]) -> None:
    try:
        text = record.getMessage()
    except Exception:  # logging itself reports a record whose arguments do not fit
        return
    if (shown := hide(text, *models)) != text:
        record.msg, record.args = shown, ()
    if record.exc_info:
        text = logging.Formatter().formatException(record.exc_info)
        if (shown := hide(text, *models)) != text:
            record.exc_info, record.exc_text = None, shown


def _without_secrets(error: Exception, shown: ToolError, model: Model) -> SnakepitError:
    if isinstance(error, UsageError):
        return InvalidCall(hide(str(error), model))
    return ToolError(hide(shown.message, model), shown.type, hide(shown.remote_traceback, model))


def _secrets_in(config: Any, is_secret: bool = False) -> set[str]:
    if isinstance(config, str):
        return {config} if is_secret and len(config) >= _SHORTEST_SECRET else set()
    if isinstance(config, Mapping):
        parts = [_secrets_in(value, is_secret or bool(_SECRET.search(str(key)))) for key, value in config.items()]
    elif isinstance(config, (list, tuple)):
        parts = [_secrets_in(value, is_secret) for value in config]
    else:
        parts = []
    return set().union(*parts)


def _of_a_caller(provider: str, config: Mapping[str, Any], allowed: Set[str]) -> dict[str, Any]:
    """Return the settings of a caller who is not trusted. The worker's own keys go to their provider alone."""
    trusted = "If all who configure models are trusted, open the pool with options={'trusted': True}"
    if unknown := config.keys() - _SETTINGS:
        raise NotAllowed(f"{provider}: the setting {min(map(str, unknown))!r:.100} is not allowed. {trusted}")
    if not _MODEL_NAME.fullmatch(config["model"]) or "://" in config["model"]:
        raise NotAllowed(f"{provider}: {config['model']!r:.100} is no plain name of a model. {trusted}")
    for name in ("api_key", "api_base"):
        value = config.get(name)
        if value is not None and (not isinstance(value, str) or not value.strip() or value.startswith("os.environ/")):
            raise NotAllowed(f"{provider}: {name} must be a text of its own, and name no variable. {trusted}")
    if config.get("api_base") is not None:
        return _with_address(provider, config, allowed)
    if not allowed & {_ANY_MODEL, provider, PROVIDERS[provider]}:
        _check_own_key(provider, config)
    return dict(config)


def _with_address(provider: str, config: Mapping[str, Any], allowed: Set[str]) -> dict[str, Any]:
    if _ANY_MODEL not in allowed:
        raise NotAllowed(
            f"{provider}: a caller gives no address (api_base), because it may lead to all that the worker can reach."
            f" Name it in the worker's environment, and {_remedy(provider)}; 'dspy:{_ANY_MODEL}' allows all addresses"
        )
    if provider not in _ADDRESSED:
        raise NotAllowed(f"{provider}: an address (api_base) would get the worker's own credentials")
    return {"api_key": _NO_KEY, **{name: value for name, value in config.items() if value is not None}}


def _check_own_key(provider: str, config: Mapping[str, Any]) -> None:
    if provider not in _ONE_KEY:
        raise NotAllowed(
            f"{provider}: its models use the worker's own credentials or servers. {_for_callers(provider)}"
        )
    if config.get("api_key") is None:
        raise NotAllowed(f"{provider}: give an api_key; the worker's own is not for callers. {_for_callers(provider)}")


def _for_callers(provider: str) -> str:
    return f"If callers may use these, {_remedy(provider)}"


def _remedy(name: str) -> str:
    return f"open the pool with options={{'allow': ['default', 'dspy:{name}']}}"


def _check_dummy(config: Mapping[str, Any]) -> None:
    if config.keys() != {"answers"} or not isinstance(config["answers"], (list, dict)):
        raise InvalidCall(
            'the provider "dummy" takes one setting, "answers": a list of dicts of output fields, taken in order, or a'
            ' dict of such dicts by a text in the input: {"answers": {"colour of the sky": {"answer": "blue"}}}'
        )
