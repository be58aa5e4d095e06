"""The chat part of goldens_text.py: templates rendered by transformers."""

import datetime

import jinja2
from goldens_text_snippets import EXPRESSIONS, FAILURES, STATEMENTS, VALUES
from goldens_text_templates import CHATS, SPECIALS, TEMPLATES
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

NOW = datetime.datetime(2026, 3, 7, 9, 5, 3)


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def make_tokenizer():
    specials = {name: token["content"] if isinstance(token, dict) else token
                for name, token in SPECIALS.items() if token is not None}
    named = {name: token for name, token in specials.items() if name != "image_token"}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "x": 2}, "x")), **named,
        model_specific_special_tokens={"image_token": specials["image_token"]})


def render(tokenizer, template, case):
    """The expected half of a case: `text`, or that it fails with what raise_exception said."""
    try:
        text = tokenizer.apply_chat_template(
            case["messages"], tools=case.get("tools"), documents=case.get("documents"),
            chat_template=template, add_generation_prompt=case["add_generation_prompt"],
            tokenize=False, **case.get("kwargs", {}))
        if " object at 0x" in text or "<generator" in text or "<bound method" in text \
                or "<built-in" in text:
            return None  # an address: nobody can expect it
        return {"text": text}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"fails": "syntax", "line": error.lineno}
    except jinja2.exceptions.TemplateError as error:
        is_told = type(error) is jinja2.exceptions.TemplateError
        return {"fails": "raised" if is_told else "template", "message": str(error)}
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError,
            KeyError) as error:
        return {"fails": "python", "message": str(error)}


def template_cases(tokenizer, template, variants):
    cases = []
    for name, messages in CHATS.items():
        for variant in variants:
            for prompt in (True, False):
                if name == "long" and (variant or not prompt):
                    continue
                case = {"chat": name, "messages": messages, "add_generation_prompt": prompt}
                case |= variant
                case["expected"] = render(tokenizer, template, case)
                del case["messages"]  # chats.json has them
                cases.append(case)
    return cases


def is_balanced(text):
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")) \
        and text.count("'") % 2 == 0 and text.count('"') % 2 == 0


def snippet_cases(tokenizer):
    sources = []
    for line in EXPRESSIONS.strip().splitlines():
        # Whole, and each operand of its ~ alone: a difference then names itself.
        parts = [line] + [part for part in line.split(" ~ ") if is_balanced(part)]
        sources += ["{{ " + part + " }}" for part in dict.fromkeys(parts)]
    sources += ["{{ " + line + " }}" for line in FAILURES] + STATEMENTS
    rows = []
    for source in sources:
        case = {"messages": CHATS["one"], "add_generation_prompt": True, "kwargs": {"v": VALUES}}
        expected = render(tokenizer, source, case)
        if expected is not None:
            rows.append({"template": source, **expected})
    return rows


def make(folder, write):
    folder.mkdir()
    chat_template_utils.datetime = FixedClock
    tokenizer = make_tokenizer()
    write(folder / "chats.json", CHATS)
    write(folder / "specials.json", SPECIALS)
    write(folder / "values.json", VALUES)
    write(folder / "snippets.json", snippet_cases(tokenizer))
    for name, (template, variants) in TEMPLATES.items():
        (folder / "templates" / name).mkdir(parents=True)
        path = folder / "templates" / name
        with open(path / "chat_template.jinja", "w", encoding="utf-8", newline="") as file:
            file.write(template)
        write(path / "cases.json", template_cases(tokenizer, template, variants))
