"""Programs of DSPy: how one is built from its recipe, which inputs and outputs it has, and how it runs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
import shutil
import textwrap
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from bridge_py.tools.context import AsyncSessionContext
from bridge_py.wire.errors import InvalidCall, NotAllowed, UnknownTool
from bridge_py.wire.specs import ToolSpec

from .language_models import library

#: Kinds of programs, with the parameters that each takes.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "predict": ("signature", "instructions", "config"),
    "chain_of_thought": ("signature", "instructions", "config"),
    "react": ("signature", "instructions", "tools", "max_iters"),
    "program_of_thought": ("signature", "instructions", "max_iters", "interpreter"),
    "module": ("class_definition", "class_name", "arguments"),
}
_CLASSES: Final = {
    "predict": "Predict",
    "chain_of_thought": "ChainOfThought",
    "react": "ReAct",
    "program_of_thought": "ProgramOfThought",
}
_TRUSTED: Final = {
    "program_of_thought": "it runs code that a language model has written",
    "module": "it runs the source text of its class",
}
#: The interpreters that can run the code of a program of thought.
_INTERPRETERS: Final = ("deno", "local")
_TYPES: Final = (
    *("str", "int", "float", "bool", "bytes", "list", "tuple", "dict", "set", "NoneType"),
    *("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set"),
)
_SETTINGS: Final = (
    *("temperature", "max_tokens", "max_completion_tokens", "top_p", "n", "stop", "seed", "rollout_id"),
    *("presence_penalty", "frequency_penalty", "reasoning_effort"),
)
_JSON_TYPES: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
_MODULE: Final = "snakepit_program"
#: Names of inputs that DSPy would take as settings of the call, and so as another model, address or key.
_RESERVED: Final = ("lm", "config", "signature", "demos", "new_signature", "prediction", "self", "model_config")
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
#: What the state of a predictor may have in it.
_LEARNED: Final = frozenset({"signature", "demos", "traces", "train", "lm", "fields"})

#: The call on whose behalf a program calls its host tools.
_serving: ContextVar[AsyncSessionContext] = ContextVar("serving")


class Recipe(msgspec.Struct, kw_only=True):
    """All that a program is built from. `build` changes whenever the program is made or saved anew."""

    id: str
    kind: str
    params: dict[str, Any]
    build: str
    state: dict[str, Any] | None = None


def check_kind(kind: str, params: Mapping[str, Any]) -> None:
    """Raise `InvalidCall` for a kind of program, a parameter or an interpreter that does not exist."""
    if kind not in KINDS:
        raise InvalidCall(f"there is no kind of program {kind!r:.100}; there are: {', '.join(KINDS)}")
    known = KINDS[kind]
    for name in params:
        if name not in known:
            raise InvalidCall(
                f"a program of kind {kind!r} has no parameter {name!r:.100}; there are: {', '.join(known)}"
            )
    first = known[0]
    if not isinstance(params.get(first), str) or not params[first].strip():
        example = "'question -> answer'" if first == "signature" else "the source text of a dspy.Module"
        raise InvalidCall(f"a program of kind {kind!r} needs {first}={example}")
    if (interpreter := params.get("interpreter", "deno")) not in _INTERPRETERS:
        raise InvalidCall(f"there is no interpreter {interpreter!r:.100}; there are: {', '.join(_INTERPRETERS)}")


async def build(recipe: Recipe, context: AsyncSessionContext, trusted: bool) -> Any:
    """Build the program of a recipe. Raises `NotAllowed`, `UnknownTool`, and `InvalidCall` if DSPy refuses it."""
    check_kind(recipe.kind, recipe.params)
    tools = await _host_tools(recipe, context) if recipe.kind == "react" else []
    return assemble(recipe, trusted, tools)


def assemble(recipe: Recipe, trusted: bool, tools: list[Any] | None = None) -> Any:
    """Build the program of a recipe from its host tools; `tools` is None if it has none. Raises as `build`."""
    check_kind(recipe.kind, recipe.params)
    if recipe.kind in _TRUSTED and not trusted:
        raise NotAllowed(
            f"a program of kind {recipe.kind!r} is not allowed: {_TRUSTED[recipe.kind]}. If all who create programs are"
            " trusted, open the pool with options={'trusted': True}"
        )
    needs_deno = recipe.kind == "program_of_thought" and recipe.params.get("interpreter") != "local"
    if needs_deno and not (importlib.util.find_spec("deno") or shutil.which("deno")):
        raise InvalidCall(
            "a program of thought runs its code in Deno, which is missing: pip install 'dspy[deno]', or choose"
            " interpreter='local', which is no sandbox"
        )
    program = _from_source(recipe) if recipe.kind == "module" else _of_signature(recipe, trusted, tools or [])
    if recipe.state is not None:
        if not trusted:
            _check_state(recipe.id, recipe.state)
        try:
            program.load_state(recipe.state)
        except Exception as error:
            raise InvalidCall(f"program {recipe.id!r}: the state does not fit: {error!r:.500}") from error
    return program


def describe(program: Any) -> dict[str, Any]:
    """Describe a program: "signature", "inputs", "optional", "takes_any", "outputs", and "is_async" for how it runs."""
    signature = _signature_of(program)
    if signature is None:
        found = _describe_function(program.forward if hasattr(program, "forward") else program.aforward)
    else:
        inputs, outputs = list(signature.input_fields), list(signature.output_fields)
        found = {"signature": signature.signature, "inputs": inputs, "outputs": outputs}
    return {"optional": [], "takes_any": False, **found, "is_async": hasattr(program, "aforward")}


@contextmanager
def running(model: Any, context: AsyncSessionContext | None = None) -> Iterator[None]:
    """Set DSPy's settings for one call: its language model, and no history, trace or callbacks."""
    token = None if context is None else _serving.set(context)
    try:
        with library().context(lm=model, disable_history=True, trace=[], callbacks=[]):
            yield
    finally:
        if token is not None:
            _serving.reset(token)


def plain(result: Any) -> dict[str, Any]:
    """Turn the result of a program into a dict of plain values."""
    if isinstance(result, library().Prediction):
        result = dict(result.items())
    if not isinstance(result, Mapping):
        result = {"output": result}
    return {str(name): _plain(value) for name, value in result.items()}


async def stream(program: Any, inputs: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """Run a program; yields {"field", "piece", "predictor"} for each piece of a field, and {"prediction"} at the end.

    A field of the prediction that came in no pieces is one piece. The caller must close the generator (`aclosing`).
    """
    dspy = library()
    streamed = dspy.streamify(_streamable(program), stream_listeners=_listeners(program))
    seen = set()
    # ASYNC119, at each yield: the caller closes this generator.
    async with aclosing(streamed(**inputs)) as values:
        async for value in values:
            if isinstance(value, dspy.streaming.StreamResponse):
                seen.add(value.signature_field_name)
                if value.chunk:
                    yield _piece(value.signature_field_name, value.chunk, value.predict_name)  # noqa: ASYNC119 - see above
            elif isinstance(value, dspy.Prediction):
                found = plain(value)
                for name in found:
                    if name not in seen:
                        yield _piece(name, found[name], "")  # noqa: ASYNC119 - see above
                yield {"prediction": found}  # noqa: ASYNC119 - see above


def _piece(field: str, piece: Any, predictor: str) -> dict[str, Any]:
    return {"field": field, "piece": piece, "predictor": predictor}


def _listeners(program: Any) -> list[Any]:
    listener = library().streaming.StreamListener
    return [
        listener(field, predict=predictor, predict_name=name, allow_reuse=True)
        for name, predictor in program.named_predictors()
        for field, info in predictor.signature.output_fields.items()
        if info.annotation is str
    ]


def _streamable(program: Any) -> Callable[..., Any]:
    """Wrap a program as `streamify` wants it: as a coroutine function whose result is a prediction."""

    async def run(**inputs: Any) -> Any:
        found = await (program.acall(**inputs) if hasattr(program, "aforward") else _in_thread(program, inputs))
        prediction = library().Prediction
        return found if isinstance(found, prediction) else prediction(**plain(found))

    run.named_predictors = program.named_predictors  # type: ignore[attr-defined]  # `streamify` looks for it
    return run


async def _in_thread(program: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a program that blocks, in a thread. A cancellation waits until the program has ended."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(functools.partial(program, **inputs))


def _of_signature(recipe: Recipe, trusted: bool, tools: list[Any]) -> Any:
    dspy, params = library(), recipe.params
    kind = getattr(dspy, _CLASSES[recipe.kind], None)
    if kind is None:
        raise InvalidCall(f"DSPy {dspy.__version__} has no {_CLASSES[recipe.kind]} any more")
    if not trusted:
        _check_signature(recipe.id, params["signature"])
    rest = _settings(params)
    try:
        signature = dspy.Signature(params["signature"], params.get("instructions"))
        return kind(signature, tools=tools, **rest) if recipe.kind == "react" else kind(signature, **rest)
    except Exception as error:
        raise InvalidCall(f"program {recipe.id!r}: DSPy does not take its parameters: {error!s:.500}") from error


def _check_signature(id: str, signature: str) -> None:
    """Raise `NotAllowed` for types that are not only known names: DSPy imports modules, pydantic evaluates texts.

    Raises `InvalidCall` for a signature that does not parse, or that is more than names and types.
    """
    for part in signature.split("->"):
        for arg in _fields(id, part):
            if not _FIELD.fullmatch(arg.arg) or arg.arg in _RESERVED:
                raise NotAllowed(f"program {id!r}: a field of a signature must not be called {arg.arg!r:.100}")
            if arg.annotation is not None and not _is_known(arg.annotation):
                raise NotAllowed(
                    f"the type {ast.unparse(arg.annotation)!r:.200} of a signature is not allowed; there are:"
                    f" {', '.join(_TYPES)}. If all who create programs are trusted, open the pool with"
                    " options={'trusted': True}"
                )


def _fields(id: str, part: str) -> list[ast.arg]:
    """Parse the fields of one side of a signature, which must be names and types only."""
    try:
        body = ast.parse(f"def f({part}): pass").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidCall(f"program {id!r}: the signature does not parse: {error!s:.200}") from None
    function = body[0]
    found = function.args if isinstance(function, ast.FunctionDef) else ast.arguments([], [], None, [], [], None, [])
    plain = ast.dump(ast.arguments([], found.args, None, [], [], None, []))
    if len(body) != 1 or ast.dump(found) != plain or ast.unparse(body[0]).count("\n") != 1:
        raise InvalidCall(f"program {id!r}: the signature has more in it than names and types: {part!r:.200}")
    return found.args


def _check_state(id: str, state: Any) -> None:
    """Raise `NotAllowed` for a state that says more than what a program has learned, such as another model."""
    if not isinstance(state, Mapping):
        return  # DSPy says what is wrong
    if not state.keys() & {"signature", "demos", "lm"}:
        for name, inner in state.items():
            if name != "metadata":
                _check_state(id, inner)
        return
    if state.get("lm") is not None:
        raise NotAllowed(
            f"program {id!r}: the state names a language model of its own; set its 'lm' to None, and the session's"
            " model is used. If all who create programs are trusted, open the pool with options={'trusted': True}"
        )
    if unknown := state.keys() - _LEARNED:
        raise NotAllowed(f"program {id!r}: the state has {min(map(str, unknown))!r:.100}, which no program learns")


def check_inputs(program: Any, inputs: Mapping[str, Any]) -> None:
    """Raise `InvalidCall` for an input that the signature of a program does not have: DSPy takes some as settings."""
    signature = _signature_of(program)
    for name in inputs:
        if signature is not None and name not in signature.input_fields:
            raise InvalidCall(f"the program has no input {name!r:.100}; there are: {', '.join(signature.input_fields)}")


def _is_known(node: ast.expr, is_literal: bool = False) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _TYPES
    if isinstance(node, ast.Constant):
        return is_literal or node.value is None
    if isinstance(node, ast.Subscript):
        return _is_known(node.value) and _is_known(
            node.slice, isinstance(node.value, ast.Name) and node.value.id == "Literal"
        )
    if isinstance(node, ast.Tuple):
        return all(_is_known(each, is_literal) for each in node.elts)
    return isinstance(node, ast.BinOp) and _is_known(node.left) and _is_known(node.right)


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a program's own settings, for its language model too, but not the model's address or key."""
    found = dict(params.get("config") or {})
    for name in found:
        if name not in _SETTINGS:
            there = ", ".join(_SETTINGS)
            raise InvalidCall(f"the config of a program has no setting {name!r:.100}; there are: {there}")
    if params.get("interpreter") == "local":
        found["interpreter_factory"] = library().LocalInterpreter
    return found | ({"max_iters": params["max_iters"]} if "max_iters" in params else {})


def _from_source(recipe: Recipe) -> Any:
    dspy, params = library(), recipe.params
    namespace: dict[str, Any] = {"__name__": _MODULE, "dspy": dspy}
    source = textwrap.dedent(params["class_definition"])
    exec(compile(source, f"<program {recipe.id}>", "exec"), namespace)  # noqa: S102 - the adapter is trusted
    found = {
        name: value
        for name, value in namespace.items()
        if isinstance(value, type) and issubclass(value, dspy.Module) and value.__module__ == _MODULE
    }
    name = params.get("class_name") or (next(iter(found)) if len(found) == 1 else None)
    if name not in found:
        there = ", ".join(found) or "none"
        raise InvalidCall(f"program {recipe.id!r}: name a dspy.Module of its text by class_name=; there are: {there}")
    return found[name](**(params.get("arguments") or {}))


def _signature_of(program: Any) -> Any:
    """Return the signature of a program of one of DSPy's own kinds, else None."""
    if type(program).__module__ == _MODULE:
        return None
    found = getattr(program, "signature", None)
    return program.predict.signature if found is None else found


def _describe_function(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    inputs = [each.name for each in named if each.default is each.empty]
    return {
        "signature": f"{', '.join(inputs)} -> ",
        "inputs": inputs,
        "optional": [each.name for each in named if each.default is not each.empty],
        "takes_any": any(each.kind is each.VAR_KEYWORD for each in parameters),
        "outputs": [],
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


async def _host_tools(recipe: Recipe, context: AsyncSessionContext) -> list[Any]:
    names = recipe.params.get("tools")
    if not isinstance(names, list) or not names:
        raise InvalidCall("a program of kind 'react' needs tools=[...]: names of host tools, see Pool.expose")
    there = await context.host_tools
    for name in names:
        if name not in there:
            raise UnknownTool(f"there is no host tool {name!r:.100}; there are: {', '.join(there) or 'none'}")
    return [_tool(spec) for name in names if (spec := there[name].spec) is not None]  # a listed tool has a spec


def _tool(spec: ToolSpec) -> Any:
    """Turn a host tool into a tool of DSPy. It asks on behalf of the call that runs the program at that time."""

    async def call(**arguments: Any) -> Any:
        context = _serving.get()
        if spec.streaming:
            found = [item async for item in context.stream_host_tool(spec.name, **arguments)]
        else:
            found = await context.call_host_tool(spec.name, **arguments)
        return str(found) if isinstance(found, (list, tuple)) else found  # DSPy fails on lists of anything but texts

    schemas = {each.name: _schema(each.type, each.description) for each in spec.parameters}
    return library().Tool(call, spec.name, spec.description, schemas, dict.fromkeys(schemas, Any))


def _schema(kind: str, description: str) -> dict[str, Any]:
    found = _JSON_TYPES.get(kind.partition("[")[0])
    return ({} if found is None else {"type": found}) | ({"description": description} if description else {})
