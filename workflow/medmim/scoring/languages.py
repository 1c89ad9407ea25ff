"""Answer phrases of other languages in English words, which the grammar of medmim.scoring.reply_parser then reads.

Only the words around an answer are replaced ("die richtige Antwort lautet B", "答案是B", "la respuesta correcta es la B"), none
that could be an option's text; what is negated stays so. Texts come and go as `reply_parser.normalise_text` leaves them.
"""

import re

# Words that mean the same in German, French, Spanish, Portuguese, Italian, Dutch, Scandinavian languages, Polish, Russian,
# Turkish, Arabic, Hindi, Vietnamese and Indonesian. They are looked for together: nobody mixes them.
_ANSWER = (
    r"(?:antwort|lösung|réponse|respuesta|resposta|gabarito|risposta|antwoord|svaret|svar|odpowiedź|ответ|cevap|yanıt|(?:ال)?إجابة"
    r"|(?:ال)?جواب|उत्तर|đáp án|jawaban(?:nya)?)"
)
_GOOD = (
    r"(?:richtige?|korrekte?|bonne|correcte?|exacte|finale?|correcta?|adecuada|correta|certa|corretta|giusta|esatta|juiste?|rätt"
    r"|korrekta?|riktige?|prawidłowa|poprawna|правильный|верный|doğru|(?:ال)?صحيحة|(?:ال)?نهائية|सही|đúng|yang benar|yang tepat)"
)
_BE = r"(?:ist|lautet|est|es|é|è|is|är|er|to|jest|это|هي|هو|है|là|adalah)"
_NOT = (
    r"(?:ist nicht|lautet nicht|n'est pas|no es|não é|non è|is niet|är inte|er ikke|to nie|nie jest|не|ليست|ليس"
    r"|không phải(?: là)?|bukan)"
)
_SO = r"(?:also|daher|somit|donc|entonces|então|quindi|dus)"
_THE = r"(?:(?:die|der|das|la|le|el|a|o|het|de|det)\s|l')"
_OPTION = (
    r"(?:option|buchstabe|lettre|opción|letra|alternativa|opção|opzione|lettera|optie|alternativ|opcja|вариант|seçenek|(?:ال)?خيار"
    r"|विकल्प|phương án|opsi)"
)
_CHOOSE = (
    r"(?:ich wähle|ich nehme|je choisis|(?:yo )?elijo|(?:eu )?escolho|(?:io )?scelgo|ik kies(?: voor)?|jag väljer|jeg vælger"
    r"|jeg velger|wybieram|я выбираю|أختار|tôi chọn|saya memilih)"
)
_OR = r"(?:oder|ou|o|of|eller|lub|albo|или|veya|أو|या|hoặc|atau)"
_LETTER = r"(?=[\"'(\[]*[a-z](?![\w'\-]))"
_NOUN = rf"(?<![\w'\-]){_THE}?(?:{_GOOD}\s)?{_ANSWER}(?:\s{_GOOD})?(?!\w)"
_LAST = r"(?=[\"'(\[]*[a-z][\"')\]]*\s*(?:$|[.,;:!?\n]))"  # "a" and "o" are articles in "é a B", not in "es A o B"
_TO_LETTER = rf"(?:\s(?:{_THE}?{_OPTION}\s{_LETTER}|(?![ao]\s){_THE}?{_LETTER}|[ao]\s{_LAST}))?"

# The same of Chinese, Japanese and Korean, which put no spaces between words.
_CJK = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
_CJK_NOUN = (
    r"(?:(?:正确|正確|最终|最終|最佳|正しい)的?)?(?:答案|答え|回答|解答|正解|정답|답변|답|正确选项|正確選項)"
    r"\s?(?:应该|應該|应|應)?"
)

_RULES = [
    (re.compile(pattern), english)
    for pattern, english in (
        (rf"(?<={_CJK})(?=[a-z0-9(\"'\[])|(?<=[a-z0-9)\"'\]])(?={_CJK})", " "),
        (rf"{_CJK_NOUN}(?:不是|不为|不為)", " answer is not "),
        (rf"{_CJK_NOUN}(?:是|为|為|选|選|は|은|는|이(?!\w))", " answer is "),
        (rf"\[\s?{_CJK_NOUN}\s?\]|(?:{_CJK_NOUN}|答)\s?:", " answer: "),
        (rf"(?:我|应该?|應該?|故)?(?:选择|選擇|选|選)\s?{_LETTER}", " i choose "),
        (rf"(?:选项|選項|選択肢)\s?{_LETTER}", " option "),
        (r"(?<![\w'\-])([a-z])\s(?:选项|選項)", r"\1 "),
        (r"(?<![\w'\-])([a-z])\s(?:是|が|이|가)?\s?(?:正确|正確|正しい|정답)\w*", r"\1 is correct"),
        (r"(?<![\w'\-])([a-z])\s(?:ではありません|ではない|가 아닙니다|이 아닙니다)", r"not \1"),
        (r"(?<=[a-z\"')\]])\s(?:です|でしょう|입니다|이다|है)(?!\w)", ""),
        (r"(?<![\w'\-])([a-z])\s(?:或|还是|か|또는)\s(?=[a-z](?!\w))", r"\1 or "),
        (r"(?<![\w'\-])([a-z])\s(?:和|与|と|와|과)\s(?=[a-z](?!\w))", r"\1 and "),
        (rf"{_NOUN}\s{_NOT}(?!\w){_TO_LETTER}", "the answer is not "),
        (rf"{_NOUN}(?:\s{_BE}(?!\w))(?:\s{_SO})?{_TO_LETTER}", "the answer is "),
        (rf"(?<!\w){_BE}\s(?:{_SO}\s)?{_NOUN}", "the answer is"),
        (_NOUN, "answer"),
        (rf"(?<![\w'\-]){_THE}?(?:{_GOOD}\s)?{_OPTION}\s{_GOOD}\s{_BE}{_TO_LETTER}", "the answer is "),
        (rf"(?<![\w'\-]){_THE}?{_OPTION}\s{_LETTER}", "option "),
        (rf"(?<=\b[a-z])\s{_BE}\s{_THE}?{_GOOD}(?!\w)", " is correct"),
        (rf"(?<![\w'\-]){_CHOOSE}{_TO_LETTER}", "i choose "),
        (rf"(the answer is\s+[a-z])\s{_OR}\s(?=[a-z](?!\w))", r"\1 or "),
    )
]
_ASCII = re.compile(
    r"\b(?:antwort|respuesta|resposta|gabarito|risposta|antwoord|svar(?:et)?|cevap|jawaban(?:nya)?|alternativa?|opzione|optie|opcja|opsi"
    r"|letra|elijo|escolho|scelgo|wybieram|ich nehme|je choisis|ik kies|saya memilih)\b"
)


def translate_answer_phrases(text: str) -> str:
    """The text with its answer phrases in English; as it is where it has none of another language."""
    if text.isascii() and not _ASCII.search(text):
        return text
    for pattern, english in _RULES:
        text = pattern.sub(english, text)
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))
