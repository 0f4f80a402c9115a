"""Words, sentences, descriptions and voices of the probe corpus, disjoint between its splits."""

from __future__ import annotations

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True)
class Texts:
    """What one split is made of.

    Attributes:
        voices: espeak-ng voice names.
        clauses: Sentences of two opposed clauses with the slots `first` and `second`.
        openings: Sentences of two adjectives of one polarity with the slots `first` and `second`; "a" before the
            first becomes "an" where needed.
        positive: Positive adjectives of the clauses.
        negative: Negative adjectives of the clauses.
        positive_openings: Positive adjectives of the opening sentences; none of them is used in the clauses.
        negative_openings: Negative adjectives of the opening sentences; none of them is used in the clauses.
        descriptions: Descriptions of the manner of speaking for each level of dominance in 0..1.
    """

    voices: tuple[str, ...]
    clauses: tuple[str, ...]
    openings: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_openings: tuple[str, ...]
    negative_openings: tuple[str, ...]
    descriptions: dict[float, tuple[str, ...]]


TEXTS = {
    "train": Texts(
        voices=("en-us", "en-us+m3", "en-us+f1", "en-us+f4", "en-gb-x-rp+m2", "en-gb-x-rp+f2", "en-029+m7", "en+m4"),
        clauses=(
            "The food was {first} but the service was {second}.",
            "The room was {first} but the view was {second}.",
            "The first act was {first} but the last act was {second}.",
            "The song is {first} but the video is {second}.",
            "His brother is {first} but his cousin is {second}.",
            "Her garden looks {first} but her kitchen looks {second}.",
            "The plan looks {first} but the team looks {second}.",
            "The opera sounded {first} and the choir sounded {second}.",
            "The hotel seemed {first} and the beach seemed {second}.",
            "The teacher seemed {first} but the lesson seemed {second}.",
            "The bus ride felt {first} but the walk felt {second}.",
            "The meeting felt {first} while the lunch felt {second}.",
            "My office is {first} while my desk is {second}.",
            "The cake was {first} while the coffee was {second}.",
            "Our old house was {first} and our new flat is {second}.",
            "The book was {first} though the film was {second}.",
        ),
        openings=(
            "It was a {first}, {second} morning.",
            "What a {first}, {second} day.",
            "We had a {first}, {second} week.",
            "They had a {first}, {second} trip.",
            "That was a {first}, {second} party.",
            "This is a {first}, {second} place.",
            "It has been a {first}, {second} year.",
            "I had a {first}, {second} time.",
        ),
        positive=_words(
            """exceptional sublime exquisite adorable attractive admirable clever generous graceful helpful honest
            reliable thoughtful valuable vibrant captivating engaging flawless genuine gifted gracious handsome
            immaculate intelligent kind majestic pretty priceless radiant skillful smart talented tasty trustworthy
            useful wise witty popular superior professional appealing warm bright fresh clean safe productive"""
        ),
        negative=_words(
            """aggressive arrogant bland broken careless cheap clumsy corrupt creepy crude deadly defective dishonest
            disgraceful evil faulty flawed foolish gross harmful hateful inadequate incompetent inferior insulting
            lazy mediocre obnoxious offensive pointless repulsive sloppy smelly stale stupid tasteless useless vulgar
            worthless vicious wicked unfair greedy ignorant weak shabby clueless"""
        ),
        positive_openings=_words(
            """enchanting encouraging exhilarating glamorous healthy ideal interesting jolly merry optimistic
            playful positive proud rewarding romantic super tranquil blissful festive fortunate lucky
            hopeful harmonious comforting incredible spectacular phenomenal comfortable lively luxurious nice dazzling
            divine magical sensational soothing fine welcoming"""
        ),
        negative_openings=_words(
            """alarming chaotic dangerous dire disturbing frightening hopeless horrifying infuriating lonely
            monstrous nauseating outrageous revolting shameful sinister terrifying tiresome troubling unbearable
            unhappy wasteful mournful absurd bitter brutal dirty foul grotesque harsh horrendous irritating lame messy
            ridiculous sickening toxic stressing"""
        ),
        descriptions={
            0.2: (
                "The speaker sounds timid and unsure of what to say.",
                "A meek, submissive manner that gives way to others.",
                "Hesitant and powerless, as if asking for permission.",
                "The speaker seems shy and easily intimidated.",
                "A weak and helpless tone without any authority.",
                "Someone who yields and obeys, with little confidence.",
                "The voice is insecure and apologetic.",
                "A passive speaker who feels small and overwhelmed.",
                "Fearful and deferential, the speaker has no control.",
                "The speaker is nervous and lets others decide.",
            ),
            0.5: (
                "The speaker sounds neutral and matter of fact.",
                "An ordinary, even manner, neither strong nor weak.",
                "Plain and balanced, like someone reading a report.",
                "The speaker seems like an equal in a normal conversation.",
                "A moderate tone with an average amount of authority.",
                "Someone who informs in a routine, factual way.",
                "The voice is even, standard and unremarkable.",
                "A regular speaker with a middling presence.",
                "Neither leading nor following, the speaker is neutral.",
                "The speaker is plain and takes a middle position.",
            ),
            0.8: (
                "The speaker sounds commanding and sure of everything.",
                "A dominant, forceful manner that takes charge of others.",
                "Assertive and powerful, as if giving orders.",
                "The speaker seems bold and in full control.",
                "A strong and authoritative tone that demands respect.",
                "Someone who leads and commands, with great confidence.",
                "The voice is firm and imposing.",
                "A decisive speaker who dominates the room.",
                "Confident and controlling, the speaker is in charge.",
                "The speaker is fearless and decides for others.",
            ),
        },
    ),
    "validation": Texts(
        voices=("en-gb-x-rp", "en-us+m1", "en-us+f3"),
        clauses=(
            "The hall was {first} but the stage was {second}.",
            "Her letter was {first} but his answer was {second}.",
            "The captain is {first} while the crew is {second}.",
            "The salad looked {first} but the pasta looked {second}.",
            "The flight was {first} and the train was {second}.",
            "The novel seems {first} yet the play seems {second}.",
        ),
        openings=(
            "Today was a {first}, {second} day.",
            "It was a {first}, {second} evening.",
            "They spent a {first}, {second} month here.",
            "We saw a {first}, {second} match.",
        ),
        positive=_words(
            """excellent delightful brilliant beautiful marvelous perfect outstanding stunning friendly fascinating
            awesome inspiring refreshing polite"""
        ),
        negative=_words(
            """bad dreadful atrocious hideous cruel dull shocking rotten tedious hostile annoying vile abysmal
            horrid"""
        ),
        positive_openings=_words(
            "wonderful glorious thrilling relaxing successful memorable good uplifting satisfying fun"
        ),
        negative_openings=_words("poor ghastly dreary grim disastrous stressful bleak upsetting worrying traumatic"),
        descriptions={
            0.2: (
                "A shy person who seems afraid to speak up.",
                "The tone is submissive and uncertain.",
                "Unsure and weak, the talker gives in to everyone.",
                "The talker appears helpless and intimidated.",
            ),
            0.5: (
                "A neutral person who simply states the facts.",
                "The tone is even and ordinary.",
                "Balanced and plain, the talker neither leads nor follows.",
                "The talker appears average and matter of fact.",
            ),
            0.8: (
                "A powerful person who takes command.",
                "The tone is forceful and authoritative.",
                "Bold and assertive, the talker controls everyone.",
                "The talker appears dominant and self-assured.",
            ),
        },
    ),
    "test": Texts(
        voices=("en", "en-us+m2", "en-us+f2", "en-gb-x-rp+m7"),
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
            "We had a {first}, {second} holiday.",
            "It was a {first}, {second} night.",
            "I remember a {first}, {second} summer.",
            "This has been a {first}, {second} weekend.",
        ),
        positive=_words(
            """fantastic lovely great gorgeous splendid charming fabulous terrific superb delicious cheerful
            impressive elegant remarkable"""
        ),
        negative=_words(
            """terrible awful nasty miserable disgusting ugly boring dismal pathetic rude filthy disappointing
            appalling lousy"""
        ),
        positive_openings=_words(
            "magnificent exciting peaceful joyful happy enjoyable heavenly amazing pleasant sweet"
        ),
        negative_openings=_words(
            "horrible gloomy tragic painful frustrating scary sad wretched depressing catastrophic"
        ),
        descriptions={
            0.2: (
                "This person comes across as timid and weak.",
                "They speak like someone who is afraid and gives way.",
                "Uncertain, meek and without any power.",
                "This sounds insecure, submissive and hesitant.",
            ),
            0.5: (
                "This person comes across as neutral and ordinary.",
                "They speak like someone who reports plain facts.",
                "Even, balanced and of average strength.",
                "This sounds matter of fact, neutral and regular.",
            ),
            0.8: (
                "This person comes across as dominant and strong.",
                "They speak like someone who commands and takes control.",
                "Certain, forceful and full of power.",
                "This sounds confident, assertive and authoritative.",
            ),
        },
    ),
}
