"""What `antiphon generate --show-lyrics-help` and `--show-caption-help` print."""

LYRICS = """\
Lyrics: words, and a form

  Write section tags in brackets on lines of their own, and the words below them:

    [Intro]
    [Verse 1]
    Streetlights lean across the water
    And the last tram hums along
    [Pre-Chorus]
    Hold that thought
    [Chorus]
    Stay a little longer
    [Bridge]
    [Chorus]
    [Outro]

  Tags      [Intro] [Verse] [Verse 1] [Pre-Chorus] [Chorus] [Bridge] [Drop] [Instrumental] [Outro]
  Form      Sections follow in the order of their tags. A section without words is instrumental.
  Length    More lines make a section longer; the song's length stays --duration.
            About 2 to 3 seconds a line leaves room to breathe.
  Lines     Six to ten syllables sing well. Keep lines of one section alike in length.
  None      No lyrics at all, or --lyrics "[Instrumental]": nobody sings.

The sandbox composer follows form and syllables, and hums them: it has no words in its voice.
"""

CAPTION = """\
Captions: what the music is like

  Comma-separated tags, the most important first:

    warm lo-fi house, soft piano, vinyl crackle, 84 bpm, late evening

  Name      genre (pop, rock, lo-fi, house, techno, ambient, jazz, classical, folk, waltz, reggae ...)
            mood (happy, sad, dark, calm, energetic, epic, dreamy ...)
            instruments (piano, guitar, strings, synth, bass, drums, pad, organ, flute, bells ...)
  Numbers   Tempo and key may stand here ("90 bpm, A minor"); the fields bpm and key_scale win.
  Leave out "no drums", "without piano", or a negative prompt: "drums, piano".
  Amount    Three to eight tags. Contradictions ("calm, aggressive") make neither.
"""
