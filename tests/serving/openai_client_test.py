#!/usr/bin/env python3
"""The official `openai` Python client against a server: what it gets must be what it expects.

openai_client_test.py [--model NAME] [--key KEY] [--scripted] [--no-install] BASE_URL

BASE_URL ends in /v1. Runs with any model. --scripted: against the gang of
tests/serving/live_server.hpp, which can be asked to lose a rank and follows no grammar.
The client is installed into a
.venv of the checkout the first time. Exit 0: all held; 1: something did not; 77: the client
cannot be had.
"""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE.parents[1] / ".venv" / "openai_client"
SKIPPED = 77
PATIENCE_S = 120


def with_client(arguments):
    """Starts this script again with an interpreter that has the client, where ours has not."""
    try:
        import openai  # noqa: F401
        return
    except ImportError:
        pass
    python = VENV / "bin" / "python"
    if os.environ.get("TROUPE_OPENAI_TEST_AGAIN"):
        print(f"the openai client is not in {VENV}: remove that folder")
        sys.exit(SKIPPED)
    if not python.exists():
        if arguments.no_install:
            print("no openai client here; run this script once without --no-install")
            sys.exit(SKIPPED)
        made = subprocess.run([sys.executable, "-m", "venv", VENV], check=False)
        got = made.returncode or subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "-r",
             HERE / "openai_client_requirements.txt"], check=False).returncode
        if got:
            print("the openai client cannot be installed")
            sys.exit(SKIPPED)
    os.environ["TROUPE_OPENAI_TEST_AGAIN"] = "1"
    os.execv(python, [str(python), "-B", *sys.argv])


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def question(text="What is a gang?"):
    return [{"role": "user", "content": text}]


GREEDY = {"max_tokens": 400, "temperature": 0}
TOOLS = [{"type": "function", "function": {
    "name": "describe", "description": "Describes a part of the runtime.", "strict": True,
    "parameters": {"type": "object", "additionalProperties": False,
                   "properties": {"part": {"type": "string", "enum": ["gang", "rank", "leader"]},
                                  "short": {"type": "boolean"}},
                   "required": ["part", "short"]}}}]


def follows_a_grammar(test):
    """Not for the scripted gang, which follows none."""
    test.follows_a_grammar = True
    return test


def check_call(call):
    check(call.type == "function" and call.id and call.function.name == "describe", call)
    given = json.loads(call.function.arguments)
    check(set(given) == {"part", "short"} and isinstance(given["short"], bool), given)
    check(given["part"] in ("gang", "rank", "leader"), given)
    return given


class Tests:
    def __init__(self, arguments):
        import openai
        self.openai = openai
        self.arguments = arguments
        self.client = openai.OpenAI(base_url=arguments.base_url, api_key=arguments.key,
                                    timeout=PATIENCE_S, max_retries=0)
        self.model = arguments.model or self.client.models.list().data[0].id

    def chat(self, **more):
        return self.client.chat.completions.create(
            **{"model": self.model, "messages": question(), "max_tokens": 12, **more})

    def figure(self, name):
        """The sum of a metric's samples; None where /metrics cannot be read."""
        url = self.arguments.base_url.removesuffix("/v1") + "/metrics"
        request = urllib.request.Request(
            url, headers={"authorization": f"Bearer {self.arguments.key}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    # --- what must hold ---

    def test_lists_models(self):
        listed = self.client.models.list()
        check(any(model.id == self.model for model in listed.data), "the model is not listed")
        check(self.client.models.retrieve(self.model).object == "model", "not retrieved")

    def test_completes_a_chat(self):
        answer = self.chat()
        check(answer.object == "chat.completion" and answer.id.startswith("chatcmpl-"), answer)
        choice = answer.choices[0]
        check(choice.message.role == "assistant" and choice.message.content is not None, choice)
        check(choice.finish_reason in ("stop", "length"), choice.finish_reason)
        usage = answer.usage
        check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
        check(usage.prompt_tokens_details.cached_tokens == 0, usage)
        check(0 < usage.completion_tokens <= 12, usage)
        check(answer._request_id == answer.id, "no x-request-id")

    def test_streams_the_same_text(self):
        settings = {"temperature": 0, "seed": 7, "max_tokens": 24}
        whole = self.chat(**settings)
        text, reason, usage, roles = "", None, None, 0
        for chunk in self.chat(**settings, stream=True, stream_options={"include_usage": True}):
            check(chunk.object == "chat.completion.chunk", chunk)
            if chunk.usage:
                usage = chunk.usage
                check(chunk.choices == [], chunk)
                continue
            check(reason is None, "a chunk after the finish reason")
            delta = chunk.choices[0].delta
            roles += delta.role == "assistant"
            text += delta.content or ""
            reason = chunk.choices[0].finish_reason
        check(text == whole.choices[0].message.content, (text, whole))
        check(reason == whole.choices[0].finish_reason and roles == 1, (reason, roles))
        check(usage == whole.usage, (usage, whole.usage))

    def test_completes_texts(self):
        answer = self.client.completions.create(model=self.model, prompt=["Once", "Twice"],
                                                max_tokens=3, n=2, temperature=1.0)
        check([choice.index for choice in answer.choices] == [0, 1, 2, 3], answer)
        check(answer.object == "text_completion", answer)
        ids = self.client.completions.create(model=self.model, prompt=[1, 2, 3], max_tokens=2)
        check(ids.usage.prompt_tokens == 3, ids.usage)
        text = "".join(chunk.choices[0].text for chunk in self.client.completions.create(
            model=self.model, prompt="Once", max_tokens=4, temperature=0, stream=True))
        check(isinstance(text, str), text)

    def test_gives_n_choices(self):
        answer = self.chat(n=3, temperature=1.0)
        check([choice.index for choice in answer.choices] == [0, 1, 2], answer)

    def test_gives_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=3, temperature=0, max_tokens=5)
        content = answer.choices[0].logprobs.content
        check(len(content) == answer.usage.completion_tokens, (len(content), answer.usage))
        for token in content:
            check(token.logprob <= 0 and len(token.top_logprobs) == 3, token)
            check(token.bytes is not None, token)
        text = self.client.completions.create(model=self.model, prompt="Once", max_tokens=3,
                                              logprobs=2, temperature=0)
        lists = text.choices[0].logprobs
        check(len(lists.tokens) == len(lists.token_logprobs) == len(lists.text_offset) ==
              len(lists.top_logprobs) == text.usage.completion_tokens, lists)

    def test_repeats_a_seed(self):
        settings = {"temperature": 1.0, "seed": 12345, "max_tokens": 16}
        first, second = self.chat(**settings), self.chat(**settings)
        check(first.choices[0].message.content == second.choices[0].message.content,
              "one seed gave two texts")
        check(first.system_fingerprint == second.system_fingerprint, "two fingerprints")

    def test_stops_at_a_string(self):
        settings = {"temperature": 0, "seed": 7, "max_tokens": 24}
        text = self.chat(**settings).choices[0].message.content
        if len(text) < 4:
            return
        stop = text[2:4]
        choice = self.chat(**settings, stop=[stop]).choices[0]
        check(choice.message.content == text[:text.index(stop)], (text, stop, choice))
        check(choice.finish_reason == "stop", choice)

    def test_names_what_is_wrong(self):
        openai = self.openai
        wrong = [({"temperature": 3}, "temperature"), ({"n": 0}, "n"),
                 ({"messages": []}, "messages"), ({"max_tokens": 10**9}, "max_tokens"),
                 ({"top_logprobs": 2}, "top_logprobs"),
                 ({"presence_penalty": 3}, "presence_penalty"),
                 ({"messages": [{"role": "user"}]}, "messages[0].content")]
        for fields, parameter in wrong:
            try:
                self.chat(**fields)
                raise AssertionError(f"{fields} was taken")
            except openai.BadRequestError as error:
                check(error.param == parameter and error.type == "invalid_request_error",
                      (fields, error.body))
        try:
            self.chat(model="no-such-model")
            raise AssertionError("a model that is not there was taken")
        except openai.NotFoundError as error:
            check(error.code == "model_not_found", error.body)

    def test_refuses_a_wrong_key(self):
        if self.arguments.key == "none":
            return
        stranger = self.openai.OpenAI(base_url=self.arguments.base_url, max_retries=0,
                                      api_key="a-key-nobody-has-given-out")
        try:
            stranger.models.list()
            raise AssertionError("a wrong key was taken")
        except self.openai.AuthenticationError as error:
            check(error.code == "invalid_api_key", error.body)

    def test_cancels_when_the_client_goes(self):
        before = self.figure("troupe_clients_gone_total")
        stream = self.chat(stream=True, max_tokens=400, extra_body={"ignore_eos": True})
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        stream.close()
        self.wait_until(lambda: self.figure("troupe_clients_gone_total") > before,
                        "the server did not see that the client went")
        self.wait_until(lambda: self.figure("vllm:num_requests_running") == 0,
                        "the gang still works for a client that went")

    def test_serves_many_at_once(self):
        async def all_of_them():
            client = self.openai.AsyncOpenAI(base_url=self.arguments.base_url, max_retries=0,
                                             api_key=self.arguments.key, timeout=PATIENCE_S)
            settings = {"model": self.model, "messages": question(), "max_tokens": 8,
                        "temperature": 0}
            answers = await asyncio.gather(
                *(client.chat.completions.create(**settings) for _ in range(16)))
            return {answer.choices[0].message.content for answer in answers}
        texts = asyncio.run(all_of_them())
        check(len(texts) == 1, f"one greedy request gave {len(texts)} texts in a batch")

    @follows_a_grammar
    def test_calls_a_tool(self):
        named = {"type": "function", "function": {"name": "describe"}}
        for choice in (named, "required"):
            answer = self.chat(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False,
                               **GREEDY).choices[0]
            check(len(answer.message.tool_calls) == 1, answer)
            check_call(answer.message.tool_calls[0])
            check(answer.finish_reason in ("stop", "tool_calls"), answer)
        none = self.chat(tools=TOOLS, tool_choice="none").choices[0]
        check(none.message.tool_calls is None and none.message.content, none)

    @follows_a_grammar
    def test_streams_a_tool_call(self):
        settings = {"tools": TOOLS, **GREEDY,
                    "tool_choice": {"type": "function", "function": {"name": "describe"}}}
        whole = self.chat(**settings).choices[0].message.tool_calls[0]
        name, arguments, ids = "", "", set()
        for chunk in self.chat(**settings, stream=True):
            for call in chunk.choices[0].delta.tool_calls or []:
                check(call.index == 0, call)
                ids |= {call.id} if call.id else set()
                name += call.function.name or ""
                arguments += call.function.arguments or ""
        check(name == "describe" and len(ids) == 1, (name, ids))
        check(arguments == whole.function.arguments, (arguments, whole))

    @follows_a_grammar
    def test_takes_a_tools_result(self):
        call = self.chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
                         **GREEDY).choices[0].message.tool_calls[0]
        messages = [*question(), {"role": "assistant", "tool_calls": [call.model_dump()]},
                    {"role": "tool", "tool_call_id": call.id, "content": "A gang is ranks."}]
        answer = self.chat(messages=messages, tools=TOOLS, tool_choice="none")
        check(answer.choices[0].message.content, answer)

    @follows_a_grammar
    def test_answers_in_a_form(self):
        form = {"type": "json_schema", "json_schema": {
            "name": "part", "strict": True, "schema": TOOLS[0]["function"]["parameters"]}}
        text = self.chat(response_format=form, **GREEDY).choices[0].message.content
        check(set(json.loads(text)) == {"part", "short"}, text)

    @follows_a_grammar
    def test_parses_into_a_class(self):
        import typing

        import pydantic

        class Part(pydantic.BaseModel):
            part: typing.Literal["gang", "rank", "leader"]
            short: bool

        answer = self.client.chat.completions.parse(
            model=self.model, messages=question(), response_format=Part, **GREEDY)
        check(isinstance(answer.choices[0].message.parsed, Part), answer)
        tool = self.openai.pydantic_function_tool(Part, name="describe")
        answer = self.client.chat.completions.parse(
            model=self.model, messages=question(), tools=[tool], tool_choice="required",
            parallel_tool_calls=False, **GREEDY)
        parsed = answer.choices[0].message.tool_calls[0].function.parsed_arguments
        check(isinstance(parsed, Part), answer)

    def test_raises_in_the_middle_of_a_stream(self):
        if not self.arguments.scripted:
            return
        text = ""
        try:
            for chunk in self.chat(messages=question("lose a rank"), stream=True, max_tokens=100):
                text += chunk.choices[0].delta.content or ""
            raise AssertionError("the stream ended as if it were whole")
        except self.openai.APIError as error:
            check(error.code == "unavailable" and "rank 1" in error.message, error)
        check(text, "nothing came before the error")
        self.wait_until(self.is_ready, "not ready again after a loss")

    # --- helpers ---

    def is_ready(self):
        url = self.arguments.base_url.removesuffix("/v1") + "/ready"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return json.load(answer)["ready"]
        except urllib.error.HTTPError:
            return False

    @staticmethod
    def wait_until(holds, what):
        pause = threading.Event()
        for _ in range(PATIENCE_S * 20):
            if holds():
                return
            pause.wait(0.05)
        raise AssertionError(what)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("--model")
    parser.add_argument("--key", default="none")
    parser.add_argument("--scripted", action="store_true")
    parser.add_argument("--no-install", action="store_true")
    arguments = parser.parse_args()
    with_client(arguments)
    tests = Tests(arguments)
    failed = 0
    for name in [name for name in dir(tests) if name.startswith("test_")]:
        test = getattr(tests, name)
        if arguments.scripted and hasattr(test, "follows_a_grammar"):
            continue
        try:
            test()
            print(f"held    {name[5:].replace('_', ' ')}")
        except Exception as error:  # one that fails must not hide the others
            failed += 1
            print(f"FAILED  {name[5:].replace('_', ' ')}: {type(error).__name__}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
