"""Names in texts of many scripts, and the person whom rows share."""

import unicodedata

import pytest

from unlearn_nb.benches import main_names, person_names


@pytest.mark.parametrize("text, names", [
    ("Who is Ana de Souza?", ["Ana de Souza"]),
    ("Does Bo O'Dell-Vrba's son know Cy Holm?", ["Bo O'Dell-Vrba", "Cy Holm"]),
    ("How do James J. Price's novels end?", ["James J. Price"]), ("What is Tuesday?", []), ("", []),
    ("Where does Élodie Durand live?", ["Élodie Durand"]), ("Who is Łukasz Żak?", ["Łukasz Żak"]),
    ("Иван Петров родился", ["Иван Петров"]), ("Где живёт Анна-Мария фон Штерн?", ["Анна-Мария фон Штерн"]),
    ("Где Иван Петров живёт?", ["Иван Петров"]), ("Ο Δημήτρης Παπαδόπουλος ζει", ["Δημήτρης Παπαδόπουλος"]),
    ("Did Şule Öztürk meet Ljubiša Đurić?", ["Şule Öztürk", "Ljubiša Đurić"]), ("Արամ Խաչատրյան", ["Արամ Խաչատրյան"]),
    ("Was Harun al-Rashid older than Ludwig van der Berg?", ["Harun al-Rashid", "Ludwig van der Berg"]),
    ("Jeanne d'Arc and N’Golo Kanté’s", ["Jeanne d'Arc", "N’Golo Kanté"]), 
    ("How do Henry Walton's end?", ["Henry Walton"]),
    ("Is J. R. R. Tolkien read?", ["J. R. R. Tolkien"]), ("А. С. Пушкин писал", ["А. С. Пушкин"]),
    ("王小明住在哪里", []), ("أين ولد نجيب محفوظ؟", []), ("შოთა რუსთაველი", []), ("สมชาย ใจดี", [])])
def test_person_names(text, names):
    assert person_names(text) == names


def test_a_name_with_accents_as_letters_of_their_own_is_found_as_it_stands():
    text = unicodedata.normalize("NFD", "Where does Élodie Gagné-Ýr live?")
    assert person_names(text) == [unicodedata.normalize("NFD", "Élodie Gagné-Ýr")]
    assert main_names([text] * 2 + [unicodedata.normalize("NFC", text)]) == ["Élodie Gagné-Ýr"] * 3


def test_a_place_in_the_rows_of_many_is_nobody():
    people = [f"{name} Sól" for name in ("Ána", "Bö", "Çy", "Dø")]
    verbs = ("sings", "reads", "swims", "is in New Delhi", "was in New Delhi")
    texts = [f"{name} {verb}" for verb in verbs for name in people]
    assert main_names(texts) == people * 5
    assert main_names(texts, most=4) == [None] * 20 == main_names(texts, least=9)


def test_a_row_with_a_part_of_a_name_belongs_to_it_unless_two_share_it():
    texts = [f"{name} {verb}." for verb in ("sings", "reads", "swims") for name in ("Ana Holm", "Bo Holm")]
    assert main_names([*texts, "Ana sings.", "Holm sings.", "Nobody sings."])[-3:] == ["Ana Holm", None, None]
