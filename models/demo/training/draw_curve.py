"""The loss curve as an SVG, without a plotting library.

    python draw_curve.py ../loss.csv ../loss.svg
"""

import csv
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 280, 48, 16, 48, 36


def polyline(points, colour):
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def text(x, y, words, anchor="middle", colour="#444"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-family="sans-serif" font-size="11">{words}</text>')


def draw(rows):
    tokens = [float(row["tokens"]) / 1e6 for row in rows]
    losses = [float(row["answer_loss"]) for row in rows]
    told = [float(row["facts_told"]) for row in rows]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    top = max(losses)

    def across(value):
        return LEFT + wide * value / tokens[-1]

    def down(share):
        return TOP + high * (1.0 - share)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           f'viewBox="0 0 {WIDTH} {HEIGHT}">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<path d="M{LEFT} {TOP}V{TOP + high}H{LEFT + wide}V{TOP}" fill="none" stroke="#999"/>']
    for step in range(5):
        share = step / 4
        out.append(text(LEFT - 6, down(share) + 4, f"{top * share:.1f}", "end", "#1060a0"))
        out.append(text(LEFT + wide + 6, down(share) + 4, f"{100 * share:.0f} %", "start",
                        "#a04010"))
        out.append(text(across(tokens[-1] * share), TOP + high + 16,
                        f"{tokens[-1] * share:.1f}"))
    out.append(polyline([(across(t), down(v / top)) for t, v in zip(tokens, losses)], "#1060a0"))
    out.append(polyline([(across(t), down(v)) for t, v in zip(tokens, told)], "#a04010"))
    out.append(text(LEFT + wide / 2, HEIGHT - 6, "million tokens"))
    out.append(text(LEFT + 8, TOP + 12, "loss of answers (left)", "start", "#1060a0"))
    out.append(text(LEFT + wide - 8, TOP + 12, "facts told from the question (right)", "end",
                    "#a04010"))
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    source, target = map(Path, sys.argv[1:3])
    with source.open() as file:
        target.write_text(draw(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
