"""Programs of DSPy in workers, with DSPy's dummy language model in place of a real one: no key, no network.

It prints:

    model: dummy
    program: question -> reasoning, answer
    {'reasoning': 'Air scatters blue light most.', 'answer': 'blue'}
    {'field': 'reasoning', 'piece': 'Air scatters blue light most.', 'predictor': ''}
    {'field': 'answer', 'piece': 'blue', 'predictor': ''}
    {'prediction': {'reasoning': 'Air scatters blue light most.', 'answer': 'blue'}}
    the shop says 5 as the host told: 5
"""

import trio

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls

PRICES = {"tea": 3, "cake": 5}
ANSWERS = {
    "the sky": {"reasoning": "Air scatters blue light most.", "answer": "blue"},
}
STEPS = [  # what a language model might say, step by step
    {"next_thought": "I look it up.", "next_tool_name": "price", "next_tool_args": {"item": "cake"}},
    {"next_thought": "That is it.", "next_tool_name": "finish", "next_tool_args": {}},
    {"reasoning": "The price list says so.", "answer": 5},
]


async def main():
    async with snakepit.open_pool(PythonCalls, workers=2) as pool, pool.session() as session:
        python = pool.python
        print("model:", await python.configure_dspy("dummy", {"answers": ANSWERS}, session=session))
        made = await python.create_dspy_program(
            "chain_of_thought", {"signature": "question -> answer"}, store_as="qa", session=session
        )
        print("program:", made["signature"])
        question = {"question": "Why is the sky blue?"}
        print(await python.execute_dspy("qa", question, session=session))

        await pool.workers.restart(made["worker"])  # its worker goes, and another one builds the program again
        async with python.stream_dspy("qa", question, session=session) as chunks:
            async for chunk in chunks:
                print(chunk)

        @session.expose
        def price(item: str) -> int:
            """What an item costs."""
            return PRICES[item]

        await python.configure_dspy("dummy", {"answers": STEPS}, session=session)
        params = {"signature": "question -> answer: int", "tools": ["price"]}
        await python.create_dspy_program("react", params, store_as="shop", session=session)
        outputs = await python.execute_dspy("shop", {"question": "what costs a cake?"}, session=session)
        print("the shop says", outputs["answer"], "as the host told:", outputs["trajectory"]["observation_0"])


if __name__ == "__main__":
    trio.run(main)
