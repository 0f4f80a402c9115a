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
        voices=("en-us", "en", "en-us+m2", "en-us+m3", "en-us+m5", "en-us+Alex", "en-us+f2", "en-us+f5"),
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
            immaculate intelligent kind majestic pretty priceless radiant skillful smart talented tasty
            useful wise witty superior professional appealing warm bright fresh clean safe productive
            brave noble loyal cute sincere wholesome courageous entertaining amusing"""
        ),
        negative=_words(
            """aggressive arrogant broken careless cheap clumsy corrupt creepy crude deadly defective
            dishonest disgraceful evil faulty flawed foolish harmful hateful inadequate incompetent
            insulting lazy obnoxious pointless sloppy smelly stale stupid tasteless useless worthless
            vicious wicked unfair ignorant weak shabby clueless noisy rusty ruined barbaric savage
            confusing exhausting unhelpful sick angry damaged"""
        ),
        positive_openings=_words(
            """enchanting encouraging exhilarating glamorous healthy ideal interesting jolly merry
            optimistic playful positive proud rewarding romantic super tranquil blissful festive
            fortunate lucky hopeful harmonious comforting incredible spectacular phenomenal comfortable
            lively luxurious nice dazzling divine magical sensational soothing fine welcoming valuable
            captivating"""
        ),
        negative_openings=_words(
            """alarming chaotic dangerous dire disturbing frightening hopeless horrifying infuriating
            lonely monstrous nauseating outrageous revolting shameful sinister terrifying tiresome
            troubling unbearable unhappy wasteful mournful absurd bitter brutal dirty foul grotesque
            harsh horrendous irritating lame messy ridiculous sickening toxic gross repulsive offensive"""
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
                "Submissive, uncertain tone.",
                "This one surrenders to everybody and doubts every word.",
                "An uncertain tone, unsure and faltering.",
                "The talk is weak, doubtful and unsure.",
                "A submissive person who follows everyone.",
                "Uncertain, the person gives in at once.",
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
                "Neutral, ordinary tone.",
                "This one reports to everybody and stays factual.",
                "An even tone, normal and regular.",
                "The talk is plain, factual and ordinary.",
                "A neutral person who informs everyone.",
                "Balanced, the person stays in the middle.",
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
                "Dominant, certain tone.",
                "This one rules over everybody and insists on every word.",
                "An assured tone, certain and unshakable.",
                "The talk is strong, determined and sure.",
                "A dominant person who directs everyone.",
                "Certain, the person takes over at once.",
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
            """wonderful glorious thrilling relaxing successful memorable good uplifting satisfying
            inspiring"""
        ),
        negative_openings=_words("ghastly dreary grim disastrous stressful bleak upsetting worrying traumatic"),
        descriptions={
            0.2: (
                "The tone is timid and weak.",
                "A shy person who is afraid to speak up.",
                "The talker appears helpless and intimidated.",
                "This one sounds submissive and insecure.",
            ),
            0.5: (
                "The tone is even and ordinary.",
                "A neutral person who simply states the facts.",
                "The talker appears average and matter of fact.",
                "This one sounds plain and balanced.",
            ),
            0.8: (
                "The tone is forceful and authoritative.",
                "A powerful person who takes command.",
                "The talker appears dominant and self-assured.",
                "This one sounds commanding and bold.",
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
            """fantastic lovely great gorgeous charming fabulous terrific delicious impressive elegant
            remarkable amazing magnificent pleasant"""
        ),
        negative=_words(
            """terrible awful nasty miserable disgusting ugly boring rude filthy disappointing appalling
            horrible painful depressing"""
        ),
        positive_openings=_words(
            """exciting peaceful joyful happy enjoyable heavenly splendid superb cheerful sweet"""
        ),
        negative_openings=_words(
            """gloomy tragic frustrating scary sad wretched catastrophic dismal pathetic lousy"""
        ),
        descriptions={
            0.2: (
                "This person comes across as timid and submissive.",
                "They speak like someone shy and helpless.",
                "A weak, insecure way of talking.",
                "Meek and intimidated speech.",
            ),
            0.5: (
                "This person comes across as neutral and ordinary.",
                "They speak like someone who reports plain facts.",
                "A balanced, factual way of talking.",
                "Even and average speech.",
            ),
            0.8: (
                "This person comes across as dominant and powerful.",
                "They speak like someone bold and commanding.",
                "A forceful, authoritative way of talking.",
                "Assertive and decisive speech.",
            ),
        },
    ),
}
