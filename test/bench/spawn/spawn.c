/*
 * How often the host can start a program at all: `spawn <at once> <seconds> pipes|null <program> [argument...]`.
 *
 * pipes: each gets 100 bytes on its standard input and has to give as many back. null: both are /dev/null.
 * Prints starts per second. Any failure ends it with status 1: a rate of failures is no rate.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BODY_BYTES = 100, AT_ONCE_MAX = 64 };

extern char **environ;
static char **command;
static int piped;
static double end_at;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void wait_for(pid_t pid) {
  int status;
  if (waitpid(pid, &status, 0) < 0) fail("waitpid");
  if (status != 0) {
    fprintf(stderr, "wait status %x\n", status);
    exit(1);
  }
}

static pid_t start(int in, int out) {
  posix_spawn_file_actions_t actions;
  pid_t pid;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  errno = posix_spawn(&pid, command[0], &actions, NULL, command, environ);
  if (errno != 0) fail(command[0]);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

static void call(void) {
  char body[BODY_BYTES] = {0}, answer[4096];
  int in[2], out[2];
  ssize_t count, bytes = 0;
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) fail("pipe2");
  if (write(in[1], body, BODY_BYTES) != BODY_BYTES) fail("write");
  close(in[1]);
  pid_t pid = start(in[0], out[1]);
  close(in[0]);
  close(out[1]);
  while ((count = read(out[0], answer, sizeof answer)) > 0) bytes += count;
  close(out[0]);
  if (bytes != BODY_BYTES) {
    fprintf(stderr, "%zd bytes came back\n", bytes);
    exit(1);
  }
  wait_for(pid);
}

static void *work(void *count) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) fail("/dev/null");
  for (; now() < end_at; ++*(long *)count) {
    if (piped)
      call();
    else
      wait_for(start(null, null));
  }
  return NULL;
}

int main(int count, char **words) {
  pthread_t threads[AT_ONCE_MAX];
  long counts[AT_ONCE_MAX] = {0}, sum = 0;
  int at_once = count > 4 ? atoi(words[1]) : 0;
  if (at_once < 1 || at_once > AT_ONCE_MAX) return 64;
  piped = strcmp(words[3], "pipes") == 0;
  command = words + 4;
  double started_at = now();
  end_at = started_at + atof(words[2]);
  for (int at = 0; at < at_once; at++) pthread_create(&threads[at], NULL, work, &counts[at]);
  for (int at = 0; at < at_once; at++) {
    pthread_join(threads[at], NULL);
    sum += counts[at];
  }
  printf("%.0f\n", sum / (now() - started_at));
}
