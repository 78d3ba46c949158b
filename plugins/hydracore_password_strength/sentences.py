"""What the library found, and what would help, in our words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zxcvbn_rs_py import Feedback

# By the names of the library's enumerations, whose values can be neither hashed nor iterated.
_WORDS = {
    "StraightRowsOfKeysAreEasyToGuess": "It follows a row of the keyboard.",
    "ShortKeyboardPatternsAreEasyToGuess": "It follows a short pattern on the keyboard.",
    "RepeatsLikeAaaAreEasyToGuess": "It repeats one character.",
    "RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess": "It repeats the same few characters.",
    "ThisIsATop10Password": "It is one of the ten most common passwords.",
    "ThisIsATop100Password": "It is one of the hundred most common passwords.",
    "ThisIsACommonPassword": "It is a common password.",
    "ThisIsSimilarToACommonlyUsedPassword": "It is much like a common password.",
    "SequencesLikeAbcAreEasyToGuess": "It follows the order of letters or digits.",
    "RecentYearsAreEasyToGuess": "It has a recent year in it.",
    "AWordByItselfIsEasyToGuess": "It is a single word.",
    "DatesAreOftenEasyToGuess": "It has a date in it.",
    "NamesAndSurnamesByThemselvesAreEasyToGuess": "It is a name.",
    "CommonNamesAndSurnamesAreEasyToGuess": "It has a common name in it.",
    "UseAFewWordsAvoidCommonPhrases": "Take several words that do not belong together.",
    "NoNeedForSymbolsDigitsOrUppercaseLetters": "Signs, digits and capitals are not needed.",
    "AddAnotherWordOrTwo": "Add a word or two that few would think of.",
    "CapitalizationDoesntHelpVeryMuch": "Capitals help little.",
    "AllUppercaseIsAlmostAsEasyToGuessAsAllLowercase": "Writing it all in capitals helps little.",
    "ReversedWordsArentMuchHarderToGuess": "Writing a word backwards helps little.",
    "PredictableSubstitutionsDontHelpVeryMuch": "Signs in place of letters, as @ for a, help little.",
    "UseALongerKeyboardPatternWithMoreTurns": "Leave the keyboard's patterns.",
    "AvoidRepeatedWordsAndCharacters": "Do not repeat words or characters.",
    "AvoidSequences": "Leave out sequences.",
    "AvoidRecentYears": "Leave out recent years.",
    "AvoidYearsThatAreAssociatedWithYou": "Leave out years that have to do with you.",
    "AvoidDatesAndYearsThatAreAssociatedWithYou": "Leave out dates and years that have to do with you.",
}


def sentences(feedback: "Feedback | None") -> Iterator[str]:
    """The warning, then the suggestions; those of a later library that we have no words for are left out."""
    if feedback is None:  # From score 3 on it says nothing, and 4 may be asked for.
        yield _WORDS["AddAnotherWordOrTwo"]
        return
    for found in (feedback.warning, *feedback.suggestions):
        # ``repr`` is the one thing of theirs that tells them apart and may not be reworded.
        words = _WORDS.get(repr(found).rpartition(".")[2])
        if words:
            yield words
