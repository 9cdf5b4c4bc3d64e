"""A chat without a language model: it finds the passages of data/handbook.md that fit a question, and streams them.

Passages are compared with the question as vectors of words, each weighed by how rare it is (TF-IDF, cosine).
Standard library only.
"""

import asyncio
import collections
import math
import re

import sandbox

WORD = re.compile(r"[a-z0-9_.]*[a-z0-9_]")
# Words that say nothing about what is asked.
COMMON = frozenset(
    "a an and are as at be but by can do does for from happens has have how i if in is it its me my of on or so that the"
    " their then there they this to was what when where which who why will with you your".split()
)


def words(text):
    """The words of a text that matter, without the commonest endings."""
    found = (word for word in WORD.findall(text.lower()) if word not in COMMON)
    return [re.sub(r"(?<=\w{3})(ing|ed|es|s)$", "", word) for word in found]


class Index:
    """Passages by their words."""

    def __init__(self, passages):
        self.passages = passages
        counts = [collections.Counter(words(passage)) for passage in passages]
        spread = collections.Counter(word for count in counts for word in count)
        self.rarity = {word: math.log(1 + len(passages) / times) for word, times in spread.items()}
        self.vectors = [self.vector(count) for count in counts]

    def vector(self, count):
        weights = {word: times * self.rarity[word] for word, times in count.items() if word in self.rarity}
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {word: weight / length for word, weight in weights.items()}

    def search(self, question):
        """The passages, best first, each with its likeness to the question from 0 to 1."""
        asked = self.vector(collections.Counter(words(question)))
        likeness = [sum(asked[word] * vector.get(word, 0.0) for word in asked) for vector in self.vectors]
        return sorted(zip(likeness, self.passages), key=lambda pair: -pair[0])


class Chat(sandbox.Model):
    """Answers the last question of the conversation with passages of the handbook."""

    def load(self):
        text = (self.data_dir / "handbook.md").read_text(encoding="utf-8")
        # A passage is a heading with what follows it.
        self.index = Index([part.strip() for part in re.split(r"(?m)^## ", text)[1:]])
        parameters = self.config.get("parameters", {})
        self.passages = parameters.get("passages", 2)
        self.threshold = parameters.get("threshold", 0.1)

    async def on_chat_messages(self, messages):
        question = next((each["content"] for each in reversed(messages) if each["role"] == "user"), "")
        for token in re.findall(r"\s*\S+", self.answer(question)):
            yield token
            await asyncio.sleep(0)  # others' turn: the answer leaves word by word

    def answer(self, question):
        found = self.index.search(question)[: self.passages]
        chosen = [passage for likeness, passage in found if likeness >= self.threshold]
        if not chosen:
            return "The handbook says nothing about that. Ask about models, reloading, limits or the gateway."
        return "\n\n".join(passage.partition("\n")[2].strip() for passage in chosen)
