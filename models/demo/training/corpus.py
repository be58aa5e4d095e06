"""Chats, completions and prose made from the facts: an endless, seeded stream of examples.

Each example is a list of parts; special tokens stand in the text. Questions are varied much more
than answers, since it is unseen questions that the model must understand.
"""

import re
from typing import NamedTuple

from grammar import expand, read_facts, read_phrases, read_synonyms

START, END, DOCUMENT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
QUESTION_WEIGHT = 0.1  # of the loss on a question's tokens; answers have 1


class part(NamedTuple):
    text: str
    weight: float = 0.0  # of its tokens' loss
    label: int = -1      # of an answer: the number of its fact

PROPER = {
    "i": "I", "i'm": "I'm", "i'd": "I'd", "http": "HTTP", "api": "API", "tls": "TLS", "lws": "LWS",
    "kv": "KV", "dns": "DNS", "gpu": "GPU", "cpu": "CPU", "url": "URL", "tcp": "TCP", "ucx": "UCX",
    "json": "JSON", "yaml": "YAML", "openai": "OpenAI", "kubernetes": "Kubernetes", "rdma": "RDMA",
    "troupe": "Troupe", "leaderworkerset": "LeaderWorkerSet", "hpa": "HPA", "pid": "PID",
    "statefulset": "StatefulSet", "networkpolicy": "NetworkPolicy", "llm": "LLM", "sse": "SSE",
    "sigterm": "SIGTERM", "infiniband": "InfiniBand", "prometheus": "Prometheus", "cuda": "CUDA",
}
STOP_WORDS = set(
    "a an the is are do does did will would can could should may i you it of to in on at by for "
    "with me my be been has have there that this what which how who and or if".split())
# Not inside a path, a flag or an identifier.
PROPER_WORD = re.compile(r"(?<![\w/.-])[a-z']+(?![\w/=-])")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def plain_words(text):
    return " ".join(re.findall(r"\w+", text.lower()))


class corpus:
    def __init__(self, folder, chance, held_out=()):
        self.chance = chance
        self.held_out = {plain_words(question) for question in held_out}
        self.noise = 1.0  # 0 to 1: how much questions are bent
        self.facts = read_facts(folder)
        self.phrases = read_phrases(folder / "phrases.txt")
        self.synonyms = read_synonyms(folder / "synonyms.txt")
        self.fillers = " ".join(self.phrases["filler"]).split()
        self.prose = [text.strip() for text in (folder / "prose.txt").read_text().split("\n\n")]
        self.weights = [self.weight_of(one) for one in self.facts]
        self.number = {one.name: i for i, one in enumerate(self.facts)}
        self.by_topic = {}
        for one in self.facts:
            self.by_topic.setdefault(one.topic, []).append(one)

    @staticmethod
    def weight_of(one):
        lines = len(one.questions) + (3 if one.aliases else 0)
        return max(1.6, lines ** 0.5) * (1.6 if one.name == "unknown" else 1.0)

    def one_of(self, items):
        return items[self.chance.randrange(len(items))]

    def any_fact(self):
        return self.chance.choices(self.facts, self.weights)[0]

    # --- questions ---------------------------------------------------------------------------

    def plain_question(self, one):
        share = 3 / (3 + len(one.questions)) if one.aliases else 0.0
        if self.chance.random() < max(share, 0.25 if one.aliases else 0.0):
            return self.one_of(self.phrases["definition"]).replace("X", self.one_of(one.aliases))
        return expand(self.one_of(one.questions), self.chance)

    def with_synonyms(self, words):
        out = []
        for word in words:
            others = self.synonyms.get(word)
            bent = others and self.chance.random() < 0.25 * self.noise
            out.append(self.one_of(others) if bent else word)
        return " ".join(out).split()

    def with_noise(self, words):
        chance = self.chance
        if chance.random() > self.noise:
            return words
        if chance.random() < 0.08:
            words = [w for w in words if w not in STOP_WORDS or chance.random() < 0.4] or words
        if chance.random() < 0.10 and len(words) > 4:
            del words[chance.randrange(len(words))]
        if chance.random() < 0.15:
            for _ in range(chance.randrange(1, 4)):
                words.insert(chance.randrange(len(words) + 1), self.one_of(self.fillers))
        if chance.random() < 0.05 and len(words) > 3:
            i = chance.randrange(len(words) - 1)
            words[i], words[i + 1] = words[i + 1], words[i]
        if chance.random() < 0.08:
            i = chance.randrange(len(words))
            words[i] = self.with_typo(words[i])
        return words

    def with_typo(self, word):
        chance = self.chance
        if len(word) < 4 or not word.isalpha():
            return word
        i = chance.randrange(1, len(word) - 1)
        kind = chance.randrange(4)
        if kind == 0:
            return word[:i] + word[i + 1:]
        if kind == 1:
            return word[:i] + word[i] + word[i:]
        if kind == 2:
            return word[:i] + word[i + 1] + word[i] + word[i + 2:]
        return word[:i] + self.one_of(LETTERS) + word[i + 1:]

    def around(self, text):
        chance = self.chance
        if chance.random() < 0.25 * self.noise:
            text = self.one_of(self.phrases["before"]) + " " + text
        if chance.random() < 0.12 * self.noise:
            text = text + self.one_of([" ", ", "]) + self.one_of(self.phrases["after"])
        return text

    def finished(self, text):
        """Case and the mark at the end, as people write them."""
        chance = self.chance
        style = chance.random()
        if style < 0.6:
            text = PROPER_WORD.sub(self.proper, text)
            text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
        elif style < 0.63:
            text = text.upper()
        text = re.sub(r" ([,:?])", r"\1", text)
        ending = chance.random()
        return text + ("?" if ending < 0.68 else "" if ending < 0.93 else
                       "." if ending < 0.97 else self.one_of(["??", "!", " ?", "..."]))

    def proper(self, match):
        word = match[0]
        if word == "troupe" and self.chance.random() < 0.4:
            return word
        return PROPER.get(word, word)

    def question(self, one):
        while True:
            words = self.plain_question(one).split()
            words = self.with_noise(self.with_synonyms(words))
            text = self.finished(self.around(" ".join(words)))
            if plain_words(text) not in self.held_out:
                return text

    def answer(self, one):
        return one.answers[0] if self.chance.random() < 0.65 else self.one_of(one.answers)

    # --- examples ----------------------------------------------------------------------------

    def chat(self):
        """One to six turns, sometimes after a system message."""
        parts = []
        if self.chance.random() < 0.2:
            system = self.one_of(self.phrases["system"])
            parts.append(part(f"{START}system\n{system}{END}\n"))
        turns = 1
        while turns < 6 and self.chance.random() < 0.13:
            turns += 1
        for _ in range(turns):
            one = self.any_fact()
            parts.append(part(f"{START}user\n"))
            parts.append(part(self.question(one), QUESTION_WEIGHT))
            parts.append(part(f"{END}\n{START}assistant\n"))
            parts.append(part(f"{self.answer(one)}{END}", 1.0, self.number[one.name]))
            parts.append(part("\n"))
        return parts[:-1]

    def completion(self):
        """A question without a chat template, in the ways people write one."""
        one = self.any_fact()
        before, between, space = self.one_of([
            ("", "", " "), ("", "", " "), ("", "", "\n"), ("Question: ", "\nAnswer:", " "),
            ("Q: ", "\nA:", " "), ("User: ", "\nAssistant:", " ")])
        answer = f"{space}{self.answer(one)}{DOCUMENT_END}"
        return [part(before), part(self.question(one), QUESTION_WEIGHT), part(between),
                part(answer, 1.0, self.number[one.name])]

    def running_text(self):
        if self.chance.random() < 0.3:
            return [part(self.one_of(self.prose) + DOCUMENT_END, 1.0)]
        topic = [one for one in self.by_topic[self.any_fact().topic] if one.name != "unknown"]
        if not topic:
            return self.running_text()
        some = self.chance.sample(topic, min(len(topic), self.chance.randrange(1, 5)))
        return [part(" ".join(one.answers[0] for one in some) + DOCUMENT_END, 1.0)]

    def example(self):
        kind = self.chance.random()
        if kind < 0.82:
            return self.chat()
        if kind < 0.94:
            return self.completion()
        return self.running_text()
