"""Learn: what bi-level routing attention does, in seven chapters, an example and a guess; also in front of a class."""

from dashboard import lesson_panel

lesson_panel.page()
