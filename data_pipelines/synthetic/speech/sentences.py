"""Sentences to be spoken, drawn from small grammars that were written for this corpus.

The vocabulary favours sounds whose articulation is visible: p, b, m, f, v, rounded vowels and open
vowels. A hash of the sentence decides its split, so that no sentence is ever in two splits, however
many are drawn.
"""

import hashlib

import numpy as np

SPLITS = ("train", "test")
_TEST_SHARE = 0.2

# One grammar per language: sentence patterns, and the words that fill their slots. Any word of a
# slot fits any pattern, because words bring their grammatical agreement with them.
# fmt: off
_ENGLISH = (
    (
        "{who} {did} {what} {where}.",
        "{when} {who} {did} {what}.",
        "{who} {did} {what}, {but} {who2} {did2} {what2}.",
        "Why did {who} {do} {what} {where}?",
        "Please {do} {what} before you {do2} {what2}.",
        "{who} {did} {what} because {who2} {did2} {what2} {when2}.",
        "Maybe we should {do} {what} and {do2} {what2}.",
        "{when}, {who} {did} {what} {where}.",
    ),
    {
        "who": ("my brother", "Pamela", "the farmer", "Bob", "your mother", "a famous painter",
                "the woman from Bombay", "papa", "our new boss", "the brave fireman", "Fiona",
                "Victor", "the old shoemaker", "everybody", "the baby", "Tom", "Mabel",
                "the blue whale"),
        "did": ("bought", "brought", "moved", "painted", "pushed", "opened", "found",
                "photographed", "washed", "borrowed", "wrapped up", "carried", "forgot", "loved",
                "hoped to move", "saw", "chose", "improved", "baked", "shaped"),
        "do": ("buy", "bring", "move", "paint", "push", "open", "find", "photograph", "wash",
               "borrow", "wrap up", "carry", "forget", "remember", "choose", "improve", "shape"),
        "what": ("five apples", "a big umbrella", "the purple boat", "two warm muffins",
                 "a bowl of soup", "the broken mobile phone", "my favourite map",
                 "a box of mushrooms", "the front door", "a huge pumpkin", "both oranges",
                 "some very fresh bread", "the fishing boat", "a cheap violin", "the yellow bus",
                 "a tomb of marble", "a cup of coffee", "the moon", "a beautiful poem",
                 "the wooden beam", "a bag of potatoes", "the old movie", "fifty-four pages",
                 "a pair of shoes", "the vase", "a piece of apple pie"),
        "where": ("in the park", "at home", "on the beach", "near the old bridge",
                  "behind the farm", "above the shop", "in front of the museum", "by the pool",
                  "at the market", "in Vienna", "on the way to Moscow", "under the palm tree",
                  "before the match", "for my family", "from the balcony", "over the weekend",
                  "without any problem"),
        "when": ("yesterday", "on Monday", "five months ago", "after breakfast",
                 "before the film", "this morning", "above all", "last November", "every summer",
                 "at half past four"),
        "but": ("but", "and", "while", "so", "and then"),
    },
)
_SPANISH = (
    (
        "{who} {did} {what} {where}.",
        "{when} {who} {did} {what}.",
        "{who} {did} {what}, {but} {who2} {did2} {what2}.",
        "¿Por qué no quieres {do} {what} {where}?",
        "Vamos a {do} {what} antes de {do2} {what2}.",
        "{when} queremos {do} {what} y también {do2} {what2}.",
        "Me gusta mucho {do} {what} {where}.",
    ),
    {
        "who": ("mi hermano", "Paloma", "el panadero", "Roberto", "tu mamá", "un famoso pintor",
                "la abuela", "papá", "el nuevo jefe", "un buen amigo", "Fabiola", "Víctor",
                "la profesora", "el bombero", "una mujer muy amable", "mi vecino", "Emilia"),
        "did": ("compró", "movió", "pintó", "empujó", "abrió", "buscó", "fotografió", "lavó",
                "probó", "preparó", "olvidó", "vio", "cambió", "pidió", "llevó", "rompió",
                "vendió"),
        "do": ("comprar", "mover", "pintar", "empujar", "abrir", "buscar", "lavar", "probar",
               "preparar", "olvidar", "ver", "cambiar", "pedir", "llevar", "vender",
               "fotografiar"),
        "what": ("cinco manzanas", "un barco blanco", "la puerta vieja", "una sopa de pollo",
                 "el mapa favorito", "un plato de uvas", "muchas flores",
                 "el pan con mantequilla", "una película famosa", "el violín",
                 "los zapatos marrones", "un vaso de agua fría", "la bufanda azul",
                 "un poema muy bonito", "el autobús", "una bomba de agua", "las ventanas",
                 "un paraguas pequeño", "el móvil nuevo", "dos libros viejos",
                 "una mesa de mármol", "un perro pequeño", "la fruta fresca"),
        "where": ("en el parque", "en la playa", "cerca del puente", "delante del museo",
                  "para mi familia", "en el mercado", "por la mañana", "sin ningún problema",
                  "sobre la mesa", "en Bolivia", "desde el balcón", "bajo la lluvia",
                  "en un pueblo", "con mucho humor", "por fin", "en nombre de todos"),
        "when": ("ayer", "el viernes", "hace cinco meses", "por la mañana", "después de comer",
                 "antes del fútbol", "en noviembre", "a mediodía", "muy pronto",
                 "todos los veranos"),
        "but": ("pero", "y", "mientras", "porque", "y después"),
    },
)
_GERMAN = (
    (
        "{who} {did} {what} {where}.",
        "{when} {did} {who} {what}.",
        "{who} {did} {what}, {but} {who2} {did2} {what2}.",
        "Warum willst du {where} {what} {do}?",
        "Wir müssen {what} {do}, bevor wir {what2} {do2}.",
        "{when} wollen wir {what} {do} und {what2} {do2}.",
        "Ich möchte {where} {what} {do}.",
    ),
    {
        "who": ("mein Bruder", "der Bauer", "die Oma", "unsere Mutter", "papa", "der Bäcker",
                "Fabian", "ein berühmter Maler", "die Frau aus Bamberg", "der neue Boss", "Emma",
                "das Baby", "ein guter Freund", "die Verkäuferin", "der mutige Pilot", "Viola"),
        "did": ("kaufte", "malte", "bewegte", "öffnete", "fand", "probierte", "brachte",
                "bemalte", "vergaß", "suchte", "fotografierte", "putzte", "verkaufte", "liebte",
                "holte"),
        "do": ("kaufen", "malen", "bewegen", "öffnen", "finden", "probieren", "bringen",
               "bemalen", "vergessen", "suchen", "fotografieren", "putzen", "verkaufen", "holen"),
        "what": ("fünf Äpfel", "einen großen Baum", "das blaue Boot", "eine warme Suppe",
                 "den Pullover", "die alte Mühle", "viele Pflaumen", "einen Becher Kaffee",
                 "das offene Fenster", "ein frisches Brot", "die Schuhe", "den schweren Koffer",
                 "eine bunte Blume", "ein Paar Strümpfe", "die Wohnung", "den Apfelkuchen",
                 "eine Vase aus Marmor", "das Märchenbuch", "einen Pfannkuchen",
                 "zwölf Briefmarken", "den Bus", "ein Bild", "die Bäume am Ufer",
                 "einen Film über Wale"),
        "where": ("im Park", "am Bahnhof", "vor dem Museum", "auf dem Markt", "bei der Brücke",
                  "für meine Familie", "im November", "ohne Probleme", "auf dem Balkon",
                  "in Wien", "am Abend", "unter dem Apfelbaum", "mit viel Humor", "von Anfang an",
                  "im Büro"),
        "when": ("gestern", "am Montag", "vor fünf Monaten", "am Morgen", "nach dem Fußball",
                 "im Sommer", "um halb vier", "immer wieder", "bald", "vor dem Film"),
        "but": ("aber", "und", "denn"),
    },
)
_FRENCH = (
    (
        "{who} {did} {what} {where}.",
        "{when}, {who} {did} {what}.",
        "{who} {did} {what}, {but} {who2} {did2} {what2}.",
        "Pourquoi veux-tu {do} {what} {where}?",
        "Nous devons {do} {what} avant de {do2} {what2}.",
        "{when}, on va {do} {what} et {do2} {what2}.",
    ),
    {
        "who": ("mon frère", "Pauline", "le boulanger", "Fabien", "ta maman", "un bon ami",
                "mamie", "papa", "la femme du maire", "le nouveau patron", "un pompier",
                "ma voisine"),
        "did": ("a vu", "a peint", "a poussé", "a ouvert", "a trouvé", "a voulu", "a lavé",
                "a préparé", "a oublié", "a vendu", "a porté", "a photographié", "a fabriqué",
                "a perdu"),
        "do": ("voir", "peindre", "pousser", "trouver", "vouloir", "laver", "préparer", "vendre",
               "porter", "photographier", "fabriquer", "perdre", "manger", "bouger"),
        "what": ("cinq pommes", "un beau bateau", "la porte bleue", "une soupe chaude",
                 "le pain frais", "un bouquet de fleurs", "la voiture rouge", "deux beaux livres",
                 "le parapluie vert", "un morceau de fromage", "la fenêtre du salon",
                 "une mappe du monde", "le vieux film", "un pull en mohair",
                 "la bouteille de vin", "un poème amusant", "les chaussures",
                 "une poupée en bois", "du beurre et du miel", "le bouton de la veste"),
        "where": ("au marché", "dans le parc", "devant le musée", "sur la plage",
                  "pour ma famille", "sans problème", "au bord du fleuve", "à Bordeaux",
                  "sous la pluie", "par amour", "près du pont", "avec beaucoup de patience",
                  "en automne", "chez nous"),
        "when": ("hier", "vendredi", "ce matin", "avant midi", "après le film", "en novembre",
                 "bientôt", "tous les étés", "pour une fois", "il y a cinq mois"),
        "but": ("mais", "et", "parce que", "et puis"),
    },
)
_ITALIAN = (
    (
        "{who} {did} {what} {where}.",
        "{when} {who} {did} {what}.",
        "{who} {did} {what}, {but} {who2} {did2} {what2}.",
        "Perché vuoi {do} {what} {where}?",
        "Dobbiamo {do} {what} prima di {do2} {what2}.",
        "{when} possiamo {do} {what} e poi {do2} {what2}.",
    ),
    {
        "who": ("mio fratello", "Fabio", "la mamma", "il babbo", "un buon amico", "la nonna",
                "Emma", "il pompiere", "una famosa pittrice", "il nuovo vicino", "Paola",
                "il fornaio"),
        "did": ("ha comprato", "ha visto", "ha spinto", "ha aperto", "ha trovato", "ha venduto",
                "ha lavato", "ha preparato", "ha portato", "ha fotografato", "ha provato",
                "ha perso"),
        "do": ("comprare", "vedere", "spingere", "aprire", "trovare", "vendere", "lavare",
               "preparare", "portare", "fotografare", "provare", "cambiare", "muovere"),
        "what": ("cinque mele", "una barca bianca", "la porta verde", "un piatto di pomodori",
                 "il pane fresco", "una zuppa di funghi", "il vecchio film", "due libri buoni",
                 "un ombrello blu", "la bambola di Paola", "un vaso di fiori", "le scarpe nuove",
                 "una bottiglia di vino", "il violino", "un pezzo di formaggio",
                 "la mappa del mondo", "un bel poema", "la finestra", "una palla da bambini",
                 "il mobile in marmo"),
        "where": ("al mercato", "nel parco", "davanti al museo", "sulla spiaggia",
                  "per la famiglia", "senza problemi", "a Bologna", "sul balcone",
                  "sotto la pioggia", "vicino al ponte", "con molto amore", "in campagna",
                  "per fortuna", "a Roma"),
        "when": ("ieri", "venerdì", "dopo pranzo", "a mezzogiorno", "di mattina", "in novembre",
                 "prima del film", "ogni domenica", "adesso", "forse"),
        "but": ("ma", "e", "perché", "mentre"),
    },
)
# fmt: on
_GRAMMARS = {
    "en": _ENGLISH,
    "es": _SPANISH,
    "de": _GERMAN,
    "fr": _FRENCH,
    "it": _ITALIAN,
}
LANGUAGES = tuple(_GRAMMARS)


def sample_sentence(rng: np.random.Generator, language: str, split: str) -> str:
    """Draws a sentence.

    Args:
      rng: Generator that draws the pattern and its words.
      language: Language code, either an item of `LANGUAGES` or one with a region such as "en-us".
      split: Either "train" or "test".

    Returns:
      A sentence that occurs in this split only.

    Raises:
      ValueError: The language or the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    grammar = _GRAMMARS.get(language.split("-")[0])
    if grammar is None:
        raise ValueError(f"language={language!r} is not one of {', '.join(LANGUAGES)}")
    while True:
        sentence = _fill_pattern(rng, *grammar)
        if assign_split(sentence) == split:
            return sentence


def assign_split(sentence: str) -> str:
    """Returns the one split in which a sentence may occur."""
    digest = hashlib.sha256(sentence.encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < _TEST_SHARE * 2**32 else "train"


def _fill_pattern(rng: np.random.Generator, patterns, words) -> str:
    """Fills a random pattern; "{what2}" takes another word from the slot "what" than "{what}"."""
    pattern = patterns[int(rng.integers(len(patterns)))]
    used: set[str] = set()
    out = []
    for piece in pattern.replace("}", "{").split("{"):
        kind = piece.rstrip("2")
        if kind in words:
            choices = [word for word in words[kind] if word not in used]
            piece = choices[int(rng.integers(len(choices)))]
            used.add(piece)
        out.append(piece)
    sentence = "".join(out)
    return sentence[0].upper() + sentence[1:]
