"""Words, sentences, descriptions and voices of the probe corpus, disjoint between its splits."""

from __future__ import annotations

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True)
class Texts:
    """What one split is made of.

    Attributes:
        voices: espeak-ng voice names. Variants with breath noise and those of the Klatt synthesizer are left out:
            their noise comes from the C library's shared random numbers, so the samples would not repeat.
        clauses: Sentences of two opposed clauses with the slots `first` and `second`.
        openings: Sentences of two adjectives of one polarity with the slots `first` and `second`; "a" before the
            first becomes "an" where needed.
        positive: Positive adjectives of the clauses.
        negative: Negative adjectives of the clauses.
        positive_openings: Positive adjectives of the opening sentences; none of them is used in the clauses.
        negative_openings: Negative adjectives of the opening sentences; none of them is used in the clauses.
        frames: Sentences of description with the slot `manner`.
        manners: Manners of speaking for each level of dominance in 0..1.
    """

    voices: tuple[str, ...]
    clauses: tuple[str, ...]
    openings: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_openings: tuple[str, ...]
    negative_openings: tuple[str, ...]
    frames: tuple[str, ...]
    manners: dict[float, tuple[str, ...]]


TEXTS = {
    "train": Texts(
        voices=("en-us", "en", "en-us+m2", "en-us+m3", "en-us+m5", "en-us+Alex", "en-us+f1", "en-us+anika"),
        clauses=(
            "The food was {first} but the service was {second}.",
            "The room was {first} but the view was {second}.",
            "The act was {first} but the finale was {second}.",
            "The song is {first} but the video is {second}.",
            "His brother is {first} but his cousin is {second}.",
            "Her garden looks {first} but her kitchen looks {second}.",
            "The plan looks {first} but the team looks {second}.",
            "The opera sounded {first} and the choir sounded {second}.",
            "The hotel seemed {first} and the beach seemed {second}.",
            "The teacher seemed {first} but the lesson seemed {second}.",
            "The ride felt {first} but the walk felt {second}.",
            "The meeting felt {first} while the lunch felt {second}.",
            "My office is {first} while my desk is {second}.",
            "The cake was {first} while the coffee was {second}.",
            "Our house was {first} and our flat was {second}.",
            "The book was {first} though the film was {second}.",
        ),
        openings=(
            "What a {first} {second} day.",
            "It was a {first} {second} morning.",
            "We had a {first} {second} week.",
            "They had a {first} {second} trip.",
            "That was a {first} {second} party.",
            "Such a {first} {second} year.",
            "I had a {first} {second} time.",
            "This is a {first} {second} place.",
        ),
        positive=_words(
            """exceptional sublime exquisite adorable attractive admirable clever generous graceful
            helpful reliable thoughtful vibrant engaging flawless genuine gifted gracious handsome
            immaculate intelligent kind majestic pretty priceless radiant skillful smart talented
            tasty useful wise witty superior professional appealing warm bright fresh clean safe
            productive brave noble loyal cute sincere wholesome courageous entertaining amusing"""
        ),
        negative=_words(
            """aggressive arrogant broken careless cheap clumsy corrupt creepy crude deadly
            defective dishonest disgraceful evil faulty flawed foolish harmful hateful inadequate
            incompetent insulting lazy obnoxious pointless sloppy smelly stale stupid tasteless
            useless worthless vicious wicked unfair ignorant weak shabby clueless noisy rusty ruined
            barbaric savage confusing exhausting unhelpful sick angry damaged"""
        ),
        positive_openings=_words(
            """enchanting encouraging exhilarating glamorous healthy ideal interesting jolly merry
            optimistic playful positive proud rewarding romantic super tranquil blissful festive
            fortunate lucky hopeful harmonious comforting incredible spectacular phenomenal
            comfortable lively luxurious nice dazzling divine magical sensational soothing fine
            welcoming memorable charismatic valuable captivating"""
        ),
        negative_openings=_words(
            """alarming chaotic dangerous dire disturbing frightening hopeless horrifying
            infuriating lonely monstrous nauseating outrageous revolting shameful sinister
            terrifying tiresome troubling unbearable unhappy wasteful mournful absurd bitter brutal
            dirty foul grotesque harsh horrendous irritating lame messy ridiculous sickening toxic
            stressful ghastly gross repulsive offensive"""
        ),
        frames=(
            "The speaker sounds {manner}.",
            "The voice is {manner}.",
            "One whose way of speaking is {manner}.",
            "The tone of this talk is {manner}.",
            "Someone who is {manner}.",
            "The manner seems {manner} throughout.",
            "This one feels {manner}.",
            "An utterance that is {manner}.",
        ),
        manners={
            0.2: (
                "timid and unsure",
                "meek and submissive",
                "hesitant and powerless",
                "shy and easily intimidated",
                "weak and helpless",
                "obedient and insecure",
                "nervous and apologetic",
                "passive and overwhelmed",
                "fearful and deferential",
                "uncertain and afraid",
                "feeble and doubtful",
                "small and submissive",
                "cowed and unsure",
                "helpless and timid",
            ),
            0.5: (
                "neutral and factual",
                "ordinary and even",
                "plain and balanced",
                "normal and routine",
                "moderate and average",
                "standard and unremarkable",
                "regular and middling",
                "matter of fact and neutral",
                "usual and everyday",
                "medium and unmarked",
                "informative and plain",
                "typical and neutral",
                "even and balanced",
                "common and average",
            ),
            0.8: (
                "commanding and sure",
                "dominant and forceful",
                "assertive and powerful",
                "bold and in full control",
                "strong and authoritative",
                "confident and imposing",
                "decisive and firm",
                "dominating and overpowering",
                "fearless and controlling",
                "certain and in charge",
                "mighty and determined",
                "grand and dominant",
                "masterful and sure",
                "powerful and commanding",
            ),
        },
    ),
    "validation": Texts(
        voices=("en-us+m6", "en-us+Denis", "en-us+m1"),
        clauses=(
            "The hall was {first} but the stage was {second}.",
            "Her letter was {first} but his answer was {second}.",
            "The captain is {first} while the crew is {second}.",
            "The salad looked {first} but the pasta looked {second}.",
            "The flight was {first} and the train was {second}.",
            "The novel seems {first} yet the play seems {second}.",
        ),
        openings=(
            "Today is a {first} {second} day.",
            "It is a {first} {second} evening.",
            "We spent a {first} {second} hour.",
            "Quite a {first} {second} month.",
        ),
        positive=_words(
            """excellent delightful brilliant beautiful marvelous perfect outstanding friendly
            fascinating awesome refreshing polite"""
        ),
        negative=_words(
            """bad dreadful atrocious hideous violent dull shocking hostile annoying vile horrid
            embarrassing selfish"""
        ),
        positive_openings=_words(
            """wonderful glorious thrilling relaxing successful good uplifting satisfying inspiring"""
        ),
        negative_openings=_words(
            """dreary grim disastrous bleak upsetting worrying traumatic distressing heartbreaking"""
        ),
        frames=(
            "This person comes across as {manner}.",
            "Their manner is {manner}.",
            "The delivery is {manner}.",
            "{manner} speech.",
        ),
        manners={
            0.2: ("weak and timid", "shy and afraid", "intimidated and helpless", "insecure and submissive"),
            0.5: ("even and ordinary", "balanced and neutral", "average and routine", "plain and factual"),
            0.8: (
                "forceful and authoritative",
                "powerful and bold",
                "dominant and self-assured",
                "assertive and commanding",
            ),
        },
    ),
    "test": Texts(
        voices=("en-us+m4", "en-us+m7", "en-us+Mike", "en-us+steph"),
        clauses=(
            "The show was {first} but the crowd was {second}.",
            "The park is {first} but the lake is {second}.",
            "His speech sounded {first} while her reply sounded {second}.",
            "The dinner was {first} and the dessert was {second}.",
            "The doctor seemed {first} but the nurse seemed {second}.",
            "The museum looked {first} yet the tour looked {second}.",
            "The colors are {first} but the pictures are {second}.",
        ),
        openings=(
            "It was a {first} {second} night.",
            "Here is a {first} {second} photo.",
            "I remember a {first} {second} summer.",
            "Another {first} {second} weekend.",
        ),
        positive=_words(
            """fantastic lovely great gorgeous charming fabulous terrific delicious impressive
            elegant remarkable amazing magnificent pleasant"""
        ),
        negative=_words(
            """terrible awful nasty miserable disgusting ugly boring rude filthy disappointing
            appalling horrible painful depressing"""
        ),
        positive_openings=_words(
            """exciting peaceful joyful happy enjoyable heavenly splendid superb cheerful sweet"""
        ),
        negative_openings=_words(
            """gloomy tragic frustrating scary sad wretched catastrophic dismal pathetic lousy"""
        ),
        frames=(
            "The talker appears {manner}.",
            "They speak like somebody {manner}.",
            "{manner} talk.",
            "What we hear is {manner}.",
        ),
        manners={
            0.2: ("timid and submissive", "shy and helpless", "insecure and weak", "meek and intimidated"),
            0.5: ("neutral and ordinary", "factual and plain", "balanced and average", "even and regular"),
            0.8: ("dominant and powerful", "bold and commanding", "forceful and confident", "assertive and decisive"),
        },
    ),
}
