/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that hand a baton on; see lockstep.h. */
#include "tests/host/lockstep.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_came[LOCKSTEP_ACTORS];
static bool done[LOCKSTEP_ACTORS];
static unsigned nr_actors, nr_left, turn;
static struct rng *draw;
static void (*body)(unsigned actor);
static __thread unsigned self;

static void hand_on(void)
{
    if (nr_left == 0) {
        return;
    }
    do {
        turn = (unsigned)rng_below(draw, nr_actors);
    } while (done[turn]);
    if (turn != self) {
        pthread_cond_signal(&turn_came[turn]);
    }
}

static void wait_for_turn(void)
{
    while (turn != self) {
        pthread_cond_wait(&turn_came[self], &lock);
    }
}

static void *actor(void *arg)
{
    self = (unsigned)(uintptr_t)arg;
    pthread_mutex_lock(&lock);
    wait_for_turn();
    body(self);
    done[self] = true;
    nr_left--;
    hand_on();
    pthread_mutex_unlock(&lock);
    return NULL;
}

void lockstep_run(unsigned nr, void (*fn)(unsigned actor), struct rng *rng)
{
    pthread_t threads[LOCKSTEP_ACTORS];

    nr_actors = nr_left = nr;
    draw = rng;
    body = fn;
    turn = 0;
    for (unsigned i = 0; i < nr; i++) {
        done[i] = false;
        pthread_cond_init(&turn_came[i], NULL);
    }
    for (uintptr_t i = 0; i < nr; i++) {
        if (pthread_create(&threads[i], NULL, actor, (void *)i) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < nr; i++) {
        pthread_join(threads[i], NULL);
        pthread_cond_destroy(&turn_came[i]);
    }
}

void lockstep_turn(void)
{
    hand_on();
    wait_for_turn();
}

unsigned lockstep_self(void)
{
    return self;
}
