"""Checkmate's optimum for the graphs that gap.lua dumps.

    python3 bench/planner/checkmate.py DUMP.json GOLDEN.json [seconds]

Jain et al., "Checkmate: Breaking the memory wall with optimal tensor
rematerialization" (2020), as a mixed-integer program for scipy's HiGHS. Stage
t runs node t for the first time; R[t, i] runs node i in stage t, S[t, i] has
it in memory when stage t begins, F[t, i, k] frees it right after node k. Two
things are added that our programs can do: a result may take over the bytes of
an operand freed by the same node, and an effect runs once.

First the least peak that any schedule has is sought; the budgets lie between it
and what keeping everything needs. A result is [budget_bytes, seconds, bound,
status]: the best schedule found, the proven lower bound, and "optimal" or
"limit" (the time limit came first). What is already in GOLDEN.json for the same
node table is not solved again.
"""

import hashlib
import json
import os
import sys

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

SHARES = [0.1, 0.3, 0.5, 0.7, 0.9]


class Program:
    """Columns and rows of the mixed-integer program, as they come up."""

    def __init__(self):
        self.cost, self.lower, self.upper, self.whole = [], [], [], []
        self.rows, self.least, self.most = [], [], []

    def column(self, lower, upper, whole, cost=0.0):
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(int(whole))
        return len(self.cost) - 1

    def row(self, terms, least, most):
        self.rows.append(terms)
        self.least.append(least)
        self.most.append(most)

    def solve(self, seconds):
        at, columns, data = [], [], []
        for i, terms in enumerate(self.rows):
            for column, factor in terms:
                at.append(i)
                columns.append(column)
                data.append(factor)
        matrix = csr_matrix((data, (at, columns)),
                            shape=(len(self.rows), len(self.cost)))
        return milp(
            np.array(self.cost), integrality=np.array(self.whole),
            bounds=Bounds(np.array(self.lower), np.array(self.upper)),
            constraints=LinearConstraint(matrix, self.least, self.most),
            options={"time_limit": seconds, "mip_rel_gap": 1e-4})


def solve(nodes, budget, seconds, least=False):
    """Least seconds within the budget, or the least peak below it."""
    n = len(nodes)
    total = sum(node["seconds"] for node in nodes)
    scale = float(max(node["bytes"] for node in nodes))
    size = [node["bytes"] / scale for node in nodes]
    room = budget / scale
    flat = 0.0 if least else 1.0
    users = [[] for _ in range(n)]
    for j, node in enumerate(nodes):
        for i in node["inputs"]:
            users[i].append(j)
    p = Program()
    run, stay, free = {}, {}, {}
    peak = p.column(0.0, room, False, 1.0 - flat)
    for t in range(n):
        for i in range(t + 1):
            once = i < t and nodes[i]["once"]
            run[t, i] = p.column(float(i == t), 0.0 if once else 1.0, True,
                                 flat * nodes[i]["seconds"] / total)
            if i < t:
                stay[t, i] = p.column(0.0, 1.0, True)
    for t in range(n):
        for i in range(t + 1):
            for j in nodes[i]["inputs"]:
                terms = [(run[t, i], 1.0), (run[t, j], -1.0)]
                if j < t:
                    terms.append((stay[t, j], -1.0))
                p.row(terms, -np.inf, 0.0)
            if i < t:
                p.row([(run[t, i], 1.0), (stay[t, i], 1.0)], 0.0, 1.0)
                terms = [(stay[t, i], 1.0), (run[t - 1, i], -1.0)]
                if i < t - 1:
                    terms.append((stay[t - 1, i], -1.0))
                p.row(terms, -np.inf, 0.0)
    # Frees: after the last of its users that runs in the stage, unless it is
    # wanted in the next; whole because all that bounds them is.
    for t in range(n):
        for i in range(t + 1):
            if size[i] == 0.0:
                continue
            spots = [k for k in [i] + users[i] if k <= t]
            for k in spots:
                f = free[t, i, k] = p.column(0.0, 1.0, False)
                p.row([(f, 1.0), (run[t, k], -1.0)], -np.inf, 0.0)
                if t + 1 < n:
                    p.row([(f, 1.0), (stay[t + 1, i], 1.0)], 0.0, 1.0)
                for j in spots:
                    if j > k:
                        p.row([(f, 1.0), (run[t, j], 1.0)], 0.0, 1.0)
            terms = [(free[t, i, k], 1.0) for k in spots]
            terms.append((run[t, i], -1.0))
            if i < t:
                terms.append((stay[t, i], -1.0))
            p.row(terms, -np.inf, 0.0)
    for t in range(n):
        # live: what is in memory before node k of the stage
        live = p.column(0.0, room, False)
        terms = [(live, 1.0)]
        terms += [(stay[t, i], -size[i]) for i in range(t) if size[i]]
        p.row(terms, 0.0, 0.0)
        for k in range(t + 1):
            over = [free[t, i, k] for i in nodes[k]["over"] if size[i]]
            terms = [(live, 1.0), (run[t, k], size[k])]
            if over and size[k]:
                taken = p.column(0.0, 1.0, False)
                p.row([(taken, 1.0)] + [(f, -1.0) for f in over], -np.inf, 0.0)
                p.row([(taken, 1.0), (run[t, k], -1.0)], -np.inf, 0.0)
                terms.append((taken, -size[k]))
            p.row(terms + [(peak, -1.0)], -np.inf, 0.0)
            after = p.column(0.0, room, False)
            terms = [(after, 1.0), (live, -1.0), (run[t, k], -size[k])]
            for i in set([k] + nodes[k]["inputs"]):
                if (t, i, k) in free:
                    terms.append((free[t, i, k], size[i]))
            p.row(terms, 0.0, 0.0)
            live = after
    result = p.solve(seconds)
    unit = scale if least else total
    found = result.fun * unit if result.x is not None else None
    bound = result.mip_dual_bound
    bound = 0.0 if bound is None else bound * unit
    if not least:
        bound = max(bound, total)
    return found, bound, "optimal" if result.status == 0 else "limit"


def main():
    dump, golden = sys.argv[1:3]
    limit = float(sys.argv[3]) if len(sys.argv) > 3 else 60.0
    with open(dump, encoding="utf-8") as file:
        graph = json.load(file)
    nodes = graph["nodes"]
    text = json.dumps(nodes, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()[:16]
    done = {"name": graph["name"], "nodes": len(nodes), "digest": digest,
            "limit_seconds": limit, "results": []}
    if os.path.exists(golden):
        with open(golden, encoding="utf-8") as file:
            before = json.load(file)
        if before["digest"] == digest:
            done = before
    most = graph["arena_bytes"]

    def save():
        with open(golden, "w", encoding="utf-8") as file:
            json.dump(done, file)
            file.write("\n")

    if "least" not in done:
        done["least"] = solve(nodes, most, limit, least=True)
        print(graph["name"], len(nodes), "least", done["least"], "of", most,
              flush=True)
        save()
    least = done["least"][0] or most
    for share in SHARES[len(done["results"]):]:
        budget = int(least + share * (most - least)) // 64 * 64
        result = solve(nodes, budget, limit)
        print(graph["name"], budget, *result, flush=True)
        done["results"].append([budget, *result])
        save()


if __name__ == "__main__":
    main()
