"""Attacks through DSPy where callers are not trusted: no code runs, and nothing of the worker is spent or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from bridge_py.dynamic.dspy_programs import Recipe, assemble
from bridge_py.dynamic.language_models import PROVIDERS, Model
from bridge_py.wire.errors import NotAllowed, UsageError
from tests.helpers import python_attempts as attempts
from tests.helpers.openai_server import serving


@pytest.mark.parametrize("signature", attempts.SIGNATURES)
@pytest.mark.parametrize("kind", ["predict", "chain_of_thought", "react"])
def test_signatures_are_names_and_listed_types(kind: str, signature: str) -> None:
    pytest.importorskip("dspy")
    recipe = Recipe(id="p", kind=kind, params={"signature": signature}, build="1")
    with pytest.raises(UsageError):
        assemble(recipe, trusted=False, tools=[])


@pytest.mark.parametrize("signature", ["a: {0}): pass\ndef g(x -> b", "a: {0} -> b", "a -> b: {0}): pass\ndef g(x"])
def test_a_signature_that_does_not_parse_imports_nothing(
    signature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dspy")
    name = "module_that_tells_of_its_import"
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe(id="p", kind="predict", params={"signature": signature.format(name)}, build="1")
    with pytest.raises(UsageError):
        assemble(recipe, trusted=False, tools=[])


@pytest.mark.parametrize("state", attempts.STATES)
@pytest.mark.parametrize("nested", [False, True])
def test_a_saved_state_names_no_other_model(state: dict[str, Any], nested: bool) -> None:
    pytest.importorskip("dspy")
    kind, given = ("chain_of_thought", {"predict": state, "metadata": {"x": 1}}) if nested else ("predict", state)
    recipe = Recipe(id="p", kind=kind, params={"signature": "a -> b"}, build="1", state=given)
    with pytest.raises(NotAllowed):
        assemble(recipe, trusted=False, tools=[])


@pytest.mark.parametrize(("provider", "config"), attempts.MODELS)
def test_a_model_of_a_caller_sends_no_key_of_the_worker_elsewhere(provider: str, config: dict[str, Any]) -> None:
    for allowed in ((), ("LM",)):
        with pytest.raises(NotAllowed):
            Model(1, provider, config).make(trusted=False, allowed=frozenset(allowed))


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_a_model_of_a_caller_has_a_key_of_the_caller(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would spend the worker's; some providers use what the worker has even where a key is given."""
    pytest.importorskip("dspy")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "key-of-the-worker")
    with pytest.raises(NotAllowed, match=rf"'dspy:{provider}'"):
        Model(1, provider, {"model": "m"}).make(trusted=False)
    with pytest.raises(NotAllowed, match=rf"'dspy:{provider}'"):
        Model(1, provider, {"model": "m", "api_key": None}).make(trusted=False, allowed=frozenset({"other"}))
    assert Model(1, provider, {"model": "m"}).make(trusted=False, allowed={provider}) is not None
    own = Model(1, provider, {"model": "m", "api_key": "key-of-the-caller"})
    if provider in ("azure", "bedrock", "databricks", "huggingface", "ollama", "vertex"):
        with pytest.raises(NotAllowed, match="the worker's own credentials or servers"):
            own.make(trusted=False)
    else:
        assert own.make(trusted=False).kwargs["api_key"] == "key-of-the-caller"


@pytest.mark.parametrize("provider", ["openai", "ollama"])
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "http://169.254.169.254/v1", "http://localhost", "file:///x"]
)
def test_a_caller_gives_no_address(provider: str, address: str) -> None:
    """It would lead to all that the worker can reach, and answers and errors would tell what is there."""
    for key in ({}, {"api_key": "key-of-the-caller"}):
        model = Model(1, provider, {"model": "m", "api_base": address, **key})
        for allowed in (frozenset[str](), frozenset({provider})):
            with pytest.raises(NotAllowed, match=r"gives no address \(api_base\)"):
                model.make(trusted=False, allowed=allowed)


@pytest.mark.parametrize("engine", ["auto", "litellm"])
async def test_the_owner_names_the_address_and_says_who_has_the_key_of_the_worker(engine: str) -> None:
    with serving() as server:
        base = server.config["api_base"]
        environment = {"OPENAI_API_KEY": "key-of-the-worker", "OPENAI_API_BASE": base, "OPENAI_BASE_URL": base}
        keys = []
        for allow, key in ((["default"], "key-of-the-caller"), (["default", "dspy:openai"], None)):
            options = {"allow": allow}
            async with (
                snakepit.open_pool(PythonCalls, workers=1, env=environment, options=options) as pool,
                pool.session() as session,
            ):
                python, own = pool.python, {} if key is None else {"api_key": key}
                config = {"model": "m", "num_retries": 0, "engine": engine}
                if key is not None:
                    with pytest.raises(NotAllowed, match="the worker's own is not for callers"):
                        await python.configure_dspy("openai", config, session=session)
                with pytest.raises(NotAllowed, match="gives no address"):
                    await python.configure_dspy("openai", {**config, **own, "api_base": base}, session=session)
                await python.configure_dspy("openai", {**config, **own}, session=session)
                params = {"signature": "a -> answer"}
                await python.create_dspy_program("chain_of_thought", params, store_as="p", session=session)
                assert await python.execute_dspy("p", {"a": "x"}, session=session)
                keys.append({request["key"] for request in server.requests})
                server.requests.clear()
        assert keys == [{"key-of-the-caller"}, {"key-of-the-worker"}]


@pytest.mark.parametrize("engine", ["auto", "litellm"])
async def test_the_worker_keeps_its_key_from_the_address_of_a_caller(engine: str) -> None:
    with serving() as server:
        environment, options = {"OPENAI_API_KEY": "key-of-the-worker"}, {"allow": ["default", "dspy:LM"]}
        async with (
            snakepit.open_pool(PythonCalls, workers=1, env=environment, options=options) as pool,
            pool.session() as session,
        ):
            python = pool.python
            config = {"model": "m", "api_base": server.config["api_base"], "num_retries": 0, "engine": engine}
            await python.configure_dspy("openai", config, session=session)
            params = {"signature": "a -> answer"}
            await python.create_dspy_program("chain_of_thought", params, store_as="p", session=session)
            assert await python.execute_dspy("p", {"a": "x"}, session=session)
            with pytest.raises(UsageError, match="no input 'config'"):
                inputs = {"a": "x", "config": {"api_base": "http://127.0.0.1:9"}}
                await python.execute_dspy("p", inputs, session=session)
        assert {request["key"] for request in server.requests} == {"no-key"}
