"""The layouts on the real vocabularies, against the owners' own code: Meta's of Llama 3, and Mistral's.

The vocabularies come with the packages llama-models and mistral-common. Both tokenizers get the two tokens that the published
models add: an image and a pad.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import llama_models
import mistral_common
import pytest
import sentencepiece
from llama_models.datatypes import RawMessage
from llama_models.llama3.chat_format import ChatFormat
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from medmim.config.part_names import SYSTEM_MESSAGES
from medmim.models.families.registry import get_family
from medmim.questions.prompt import LETTERS

LLAMA_3 = Path(llama_models.__file__).parent / "llama3/tokenizer.model"
MISTRAL = Path(mistral_common.__file__).parent / "data/tokenizer.model.v1"
"""That of Mistral-7B-Instruct-v0.2."""
IMAGE, PAD = "<image>", {"mantis": "<|pad|>", "llava-med": "<pad>"}
# Of two spaces in a row transformers makes another token than SentencePiece does, whatever the layout.
QUESTIONS = [
    "Which image shows the larger lesion?\nA: the first image\nB: the second image",
    "Wie groß ist der Herd, 12,5 µm oder ≥ 3 cm²? (T1/CT1, week 012-2)\nA: größer\nB: kleiner\nC: unchanged",
    " Is there a 'mass'\tin the right breast?\n\nAnswer briefly.",
    "腫瘍は大きくなりましたか。",
]


@pytest.fixture(scope="module")
def meta() -> MetaTokenizer:
    return MetaTokenizer(LLAMA_3)


@pytest.fixture(scope="module")
def tokenizers(meta: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By family the tokenizer of its published model."""
    backend = TikTokenConverter(vocab_file=str(LLAMA_3), extra_special_tokens=list(meta.special_tokens)).converted()
    llama = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    folder = tmp_path_factory.mktemp("mistral")
    shutil.copyfile(MISTRAL, folder / "tokenizer.model")
    told = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    made = {"mantis": llama, "llava-med": AutoTokenizer.from_pretrained(str(folder))}
    for family, tokenizer in made.items():
        assert tokenizer.add_tokens([IMAGE, PAD[family]], special_tokens=True) == 2
    return made


def test_ids_of_the_published_models(tokenizers: dict[str, Any]) -> None:
    ids = {family: tokenizer.convert_tokens_to_ids([IMAGE, PAD[family]]) for family, tokenizer in tokenizers.items()}
    assert ids == {"mantis": [128256, 128257], "llava-med": [32000, 32001]}


@pytest.mark.parametrize("text", QUESTIONS)
@pytest.mark.parametrize("system", ["", SYSTEM_MESSAGES["mantis"]])
def test_mantis_asks_as_llama_3_is_asked(meta: MetaTokenizer, tokenizers: dict[str, Any], text: str, system: str) -> None:
    messages = [RawMessage(role="system", content=system)] if system else []
    # Its code strips a message's ends; ours keeps them, as Mantis's does.
    expected = ChatFormat(meta).encode_dialog_prompt([*messages, RawMessage(role="user", content=text.strip())]).tokens
    ids, _ = get_family("mantis").encode_sample(tokenizers["mantis"], text.strip(), system=system)
    assert ids == expected


@pytest.mark.parametrize("text", QUESTIONS)
def test_mantis_shows_images_by_hand(meta: MetaTokenizer, tokenizers: dict[str, Any], text: str) -> None:
    def encode(words: str) -> list[int]:
        return list(meta.encode(words, bos=False, eos=False))

    def head(role: str) -> list[int]:
        return [128006, *encode(role), 128007, *encode("\n\n")]

    images = [*encode("(image 1: <Image>"), 128256, *encode("</Image>)(image 2: <Image>"), 128256]
    expected = [128000, *head("user"), *images, *encode(f"</Image>){text}"), 128009, *head("assistant")]
    ids, labels = get_family("mantis").encode_sample(tokenizers["mantis"], IMAGE * 2 + text, "B: the second image")
    answer = [*encode("B: the second image"), 128009]
    assert ids == expected + answer and labels == [-100] * len(expected) + answer


@pytest.mark.parametrize("text", QUESTIONS)
def test_llava_med_asks_as_mistral_is_asked(tokenizers: dict[str, Any], text: str) -> None:
    messages = [UserMessage(content=text.strip()), AssistantMessage(content="the first image")]
    expected = MistralTokenizer.v1().encode_chat_completion(ChatCompletionRequest(messages=messages[:1])).tokens
    ids, labels = get_family("llava-med").encode_sample(tokenizers["llava-med"], text, "the first image")
    assert ids[: len(expected)] == expected and set(labels[: len(expected)]) == {-100}
    pieces = tokenizers["llava-med"].convert_ids_to_tokens(labels[len(expected) :])
    assert pieces == ["▁the", "▁first", "▁image", "</s>"]


@pytest.mark.parametrize("text", QUESTIONS)
def test_llava_med_shows_images_by_hand(tokenizers: dict[str, Any], text: str) -> None:
    """As its own code does: the text between two images is encoded on its own."""
    encode = sentencepiece.SentencePieceProcessor(str(MISTRAL)).encode
    expected = [1, *encode("[INST] "), 32000, *encode("\n"), 32000, *encode(f"\n{text.strip()} [/INST]")]
    assert get_family("llava-med").encode_sample(tokenizers["llava-med"], IMAGE * 2 + text)[0] == expected


@pytest.mark.parametrize("family", ["mantis", "llava-med"])
def test_answers_decode_back_and_letters_are_distinct(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers[family]
    for answer in (*(f"{letter}: x" for letter in LETTERS), "B: größer, 12.5 µm", "stable", "腫瘍"):
        ids, labels = get_family(family).encode_sample(tokenizer, QUESTIONS[0], answer)
        answer_ids = [i for i in labels if i != -100]
        assert ids[-len(answer_ids) :] == answer_ids
        assert tokenizer.decode(answer_ids, skip_special_tokens=True).strip() == answer
    firsts = [
        next(i for i in get_family(family).encode_sample(tokenizer, QUESTIONS[0], f"{letter}: x")[1] if i != -100)
        for letter in LETTERS
    ]
    assert len(set(firsts)) == len(LETTERS)
