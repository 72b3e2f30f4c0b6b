port ENV.fetch('PORT', 8080)
workers 0 # single mode: leave.rb traps TERM of this process
threads 4, 32 # a busy kept-alive connection takes one
persistent_timeout 75
drain_on_shutdown # serve what is in the queue
rackup '/app/config.ru'
environment 'none'
quiet
